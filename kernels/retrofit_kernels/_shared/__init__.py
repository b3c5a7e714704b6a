"""Used by the loss and the search."""
