"""A saved graph as a trainable torch module, one training loop, weights written back."""
