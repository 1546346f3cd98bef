"""A new model held against an old one."""
