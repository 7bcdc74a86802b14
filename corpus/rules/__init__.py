"""Rules that judge an English text and its translation: one small function each, which goes through a batch at once."""
