"""Whether rows of a corpus are in a benchmark: images and texts that are the same, or nearly."""
