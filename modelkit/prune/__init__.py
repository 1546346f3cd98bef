"""Fewer numbers: weights set to zero, or whole channels taken out. One file per algorithm."""
