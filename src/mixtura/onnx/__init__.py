"""Export: ``graph`` turns a model into ONNX graphs; ``runner`` is the program shipped with them."""
