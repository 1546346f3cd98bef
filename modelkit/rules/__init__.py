"""Rule engines: data structures, their exact meaning, a language, analysis, and ONNX files made of them."""
