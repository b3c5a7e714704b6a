"""The training step, its engine and its callbacks."""
