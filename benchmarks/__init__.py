"""Comparisons with other tools, each in one run on one machine."""
