"""What several commands read from their flags: models, encoders, benchmarks, releases, training."""
