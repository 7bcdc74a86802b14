"""What several rooms need: the on-disk embedding store, drift and alignment measures."""
