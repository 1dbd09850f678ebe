"""Stage 2: a base model and labelled rows become a bundle.

    model, rows -> onnx_graph, dataset -> base_pass: logits, embeddings -> tuning, choice -> bundle
    residuals -> codec_trials, codec_choice -> encoding -> segment -> bundle

In: an ONNX file and labelled rows, from the command line. Out: `model_store/<name>/<version>/`.
Needs the extra `fit`; nothing that serves imports it. It imports `bundle`, `inference` and `memory`
downwards, and never `api`, `server` or `cli`.
"""
