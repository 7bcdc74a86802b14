"""The built-in emoji world: names in 99 languages, scenes, a benchmark, and a tiny model that learns them."""
