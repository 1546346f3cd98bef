"""Pruning, shared values and packing, together and trained: the smallest file inside a budget."""
