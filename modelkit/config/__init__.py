"""Strict YAML, checked against a schema, and where each value came from."""
