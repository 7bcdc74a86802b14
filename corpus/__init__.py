"""Parallel corpora: schema, readers, checks, and the built-in emoji world."""
