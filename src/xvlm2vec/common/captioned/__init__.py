"""Images with captions in many languages that Debian's packages hold: benchmarks to `eval`, corpora to `corpus`."""
