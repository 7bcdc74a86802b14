"""Benchmarks as ranking tasks: published ones, MMMEB, and folders that a release wrote."""
