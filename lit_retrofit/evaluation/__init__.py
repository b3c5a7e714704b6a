"""Retrieval measures."""
