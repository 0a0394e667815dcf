"""The page of a web bundle (index.html and its scripts), and ONNX Runtime Web, which the export puts beside it."""
