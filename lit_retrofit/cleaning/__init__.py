"""Cleaning training records: what is broken, repeated, leaked or wrong is left out, counted and told."""
