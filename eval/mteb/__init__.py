"""mteb's tasks through our models, and our benchmarks as tasks of mteb."""
