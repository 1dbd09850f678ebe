"""Linear base models as ONNX: one Gemm from features to logits, or to a number."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

__all__ = ["export_linear", "least_squares"]

_OPSET = 17


def least_squares(
    features: NDArray[np.float32], targets: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights [1, d] and bias [1] of the ordinary least squares of targets [n] on features."""
    table = np.column_stack([features, np.ones(len(features))]).astype(np.float64)
    found = np.linalg.lstsq(table, targets.astype(np.float64), rcond=None)[0]
    solution = np.asarray(found, np.float64)
    return solution[None, :-1], solution[-1:]


def export_linear(
    path: Path, weights: NDArray[np.float64], bias: NDArray[np.float64], output: str
) -> None:
    """Write `output` [n, L] = `features` [n, d] x `weights` [L, d] transposed + `bias` [L]."""
    width, dim = weights.shape
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["features", "weights", "bias"], [output], transB=1)],
        "linear",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", dim])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", width])],
        [
            numpy_helper.from_array(weights.astype(np.float32), "weights"),
            numpy_helper.from_array(bias.astype(np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
