"""Teaching: losses, the self-distillation trainer, the contrastive stage, collators."""
