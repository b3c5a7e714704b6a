"""Cleaning, measured: its speed rule by rule, and what training on cleaned records is worth."""
