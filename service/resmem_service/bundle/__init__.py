"""Bundles: the immutable, versioned, checksummed artifacts that are served.

    model store -> store (resolve, check) -> Bundle: manifest, base.onnx, memories/
    draft of `fit` -> store (publish) -> `model_store/<name>/<version>/`

It owns the model store; a published version is never written again. All that a server needs of a
version is here, and needs no extra. Never imports `api` or `fit`; imports `inference` and `memory`
downwards.
"""
