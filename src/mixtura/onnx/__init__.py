"""Export: ``graph`` turns a model into ONNX graphs, ``runner`` is the program that is shipped beside them."""
