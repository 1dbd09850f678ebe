"""A perceptron as an ONNX file, from the weights that scikit-learn found."""

from collections.abc import Sequence
from itertools import count
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper


def save_mlp(
    path: Path, weights: Sequence[NDArray[np.floating]], biases: Sequence[NDArray[np.floating]]
) -> None:
    """Writes `pixels [n, features] -> Gemm, Relu, ..., Gemm -> logits [n, L]`."""
    nodes, constants = [], []
    current = "pixels"
    for number, weight, bias in zip(count(), weights, biases, strict=False):
        last = number == len(weights) - 1
        for name, values in ((f"w{number}", weight), (f"b{number}", bias)):
            constants.append(numpy_helper.from_array(values.astype(np.float32), name))
        result = "logits" if last else f"sum{number}"
        nodes.append(helper.make_node("Gemm", [current, f"w{number}", f"b{number}"], [result]))
        if not last:
            current = f"hidden{number}"
            nodes.append(helper.make_node("Relu", [result], [current]))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "mlp",
        [value("pixels", TensorProto.FLOAT, ["n", weights[0].shape[0]])],
        [value("logits", TensorProto.FLOAT, ["n", weights[-1].shape[1]])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
