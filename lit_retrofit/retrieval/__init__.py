"""Embedding, its store on disk, and search: mining and evaluation stand on it."""
