from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.linear_model import export_linear, least_squares


def test_least_squares_find_the_plane_that_made_the_targets() -> None:
    features = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    targets = (features @ np.array([2.0, -1.0, 0.5]) + 7).astype(np.float32)
    weights, bias = least_squares(features, targets)
    np.testing.assert_allclose(weights, [[2.0, -1.0, 0.5]], atol=1e-5)
    np.testing.assert_allclose(bias, [7.0], atol=1e-5)


def test_the_written_model_computes_the_same(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    weights, bias = random.normal(size=(4, 3)), random.normal(size=4)
    export_linear(tmp_path / "folder" / "base.onnx", weights, bias, "logits")
    session = onnxruntime.InferenceSession(tmp_path / "folder" / "base.onnx")
    features = random.normal(size=(5, 3)).astype(np.float32)
    (logits,) = session.run(["logits"], {"features": features})
    np.testing.assert_allclose(logits, features @ weights.T + bias, rtol=1e-5)
