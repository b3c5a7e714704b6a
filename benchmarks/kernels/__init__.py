"""Contrastive loss and nearest neighbours against the other implementations that are installed."""
