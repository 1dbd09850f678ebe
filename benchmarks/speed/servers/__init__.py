"""The servers to compare with, each in one file and an environment of its own.

Every one serves the same ONNX file through the same ONNX Runtime session, answers a row of 64
numbers with its 10 scores, and is set up as its documentation advises for a small model on a CPU,
with one worker and without access logs. Where the documentation leaves a choice (batches or none,
a worker process or none), it is what took the least CPU time here; each file says what that is.
They run with `python -m` from the root of the repository and import nothing of the service.
"""
