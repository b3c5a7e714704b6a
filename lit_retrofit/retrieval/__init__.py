"""Embedding and exact search: mining and evaluation stand on it."""
