"""The real story: weights that others trained and captions that people translated, as stages with their inputs."""
