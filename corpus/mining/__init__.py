"""Hard negatives for contrastive training."""
