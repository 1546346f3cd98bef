"""Columns of a table become features: each step computes them in numpy and writes the same as ONNX nodes."""
