"""Searches architectures, in a space or around a saved model, and keeps the Pareto set."""
