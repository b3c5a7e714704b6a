"""Encoders: loading, adapters, pooling, export."""
