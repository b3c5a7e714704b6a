"""The embedded base model and data."""
