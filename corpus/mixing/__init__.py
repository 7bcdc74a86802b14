"""One corpus out of several: heads cut, tails kept."""
