"""Sweeps in W&B's file format, run on this machine."""
