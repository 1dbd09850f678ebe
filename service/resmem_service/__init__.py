"""ResMem service: an ONNX model answers, a memory of its past mistakes corrects the answer."""

__version__ = "0.1.0"
