"""Fewer bits per number: one file per algorithm."""
