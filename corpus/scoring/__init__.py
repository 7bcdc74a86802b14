"""Whether translations mean what their English texts mean, by the vectors of a multilingual model."""
