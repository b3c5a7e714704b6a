"""Queries by hand, against a corpus, with one or two models beside each other."""
