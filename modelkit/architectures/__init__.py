"""Networks as plain YAML: a family and its sizes become an ONNX graph with seeded weights, ready to be trained."""
