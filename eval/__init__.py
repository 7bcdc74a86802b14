"""Evaluation: benchmarks as data, metrics, one runner for every model, reports."""
