"""Fitted estimators as ONNX nodes: one file for each kind, nothing but stock operators, doubles throughout."""
