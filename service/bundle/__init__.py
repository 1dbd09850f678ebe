"""Bundles: the immutable, versioned, checksummed artifacts that are served, and their making.

    model, training rows -> onnx_graph, dataset -> logits, embeddings -> tuning -> bundle
    residuals -> codec_trials, codec_choice -> encoding -> segment -> bundle
    model store -> store (resolve, check) -> Bundle: manifest, base.onnx, memories/

In: an ONNX file and labelled rows, from the command line. Out: `model_store/<name>/<version>/`.
It owns the model store; a published version is never written again. `manifest` and `store` are what
serving reads and need no extra; everything else belongs to `resmem fit` (extra `fit`).
Never imports `service.api`; imports `service.inference` and `service.memory` only downwards.
"""
