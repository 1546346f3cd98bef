"""Whole channels go: which, how many, the cut itself, and the repair."""
