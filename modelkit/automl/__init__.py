"""Finds a good model for a table and writes it, preprocessing included, as one ONNX file."""
