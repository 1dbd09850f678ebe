"""The base model, and a prediction made of it and of the memory.

In: rows, decoded values made to fit the model's inputs (`Rows`). Out: `Predictions`, one row each.
The batch thread owns the ONNX Runtime session; the event loop owns the queue's count.
Never imports `api` or `bundle`; knows no HTTP, no SQL and no file of a bundle but
the model's.
"""
