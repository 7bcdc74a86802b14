"""The built-in emoji world: names in fourteen languages, scenes, a benchmark, and a tiny model that learns them."""
