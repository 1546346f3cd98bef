"""A report held against what is so now."""
