"""Training steps against the peers'."""
