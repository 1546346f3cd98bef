"""Layers as matrices: their weights, what flows into them, and the weights that fit it best."""
