"""Checkpoints as inputs and outputs: what torch and safetensors write becomes an ONNX file, and is written back."""
