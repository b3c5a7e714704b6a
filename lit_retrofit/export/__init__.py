"""Export to sentence-transformers, with a model card."""
