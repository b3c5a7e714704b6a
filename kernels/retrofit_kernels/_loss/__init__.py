"""The contrastive loss behind `contrastive` and `distributed`."""
