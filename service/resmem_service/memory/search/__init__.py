"""Search: the compiled kernel, the soft kNN rule and the codecs of residuals.

In: embeddings `[n, d]` and segments. Out: corrections `[n, L]` and neighbours `[n, k]`. It holds no
state and reads no file; `native/` is its C++.
"""
