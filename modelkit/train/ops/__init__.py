"""ONNX operators in torch: one function for each, in files by theme, joined in ``table``."""
