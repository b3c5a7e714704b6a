"""What writes queries: an endpoint, a local model, or rules."""
