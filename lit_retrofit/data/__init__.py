"""Records, readers, sampling and batching; knows no model."""
