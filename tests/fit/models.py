"""Small real models as ONNX files, with weights that scikit-learn trained."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from sklearn.datasets import load_diabetes, load_digits
from sklearn.linear_model import Ridge
from sklearn.neural_network import MLPClassifier

Array = NDArray[Any]

__all__ = [
    "diabetes",
    "digits",
    "digits_head",
    "digits_mlp",
    "mlp_nodes",
    "mlp_weights",
    "ridge",
    "save",
]


def save(
    path: Path,
    nodes: Sequence[NodeProto],
    inputs: Mapping[str, Sequence[int | str | None]],
    outputs: Sequence[str],
    weights: Mapping[str, Array],
    *,
    dtypes: Mapping[str, int] | None = None,
    opset: int = 17,
) -> Path:
    """Write a graph; everything is float32 but what `dtypes` says."""
    kinds = dtypes or {}
    graph = helper.make_graph(
        list(nodes),
        "test",
        [
            helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), shape)
            for name, shape in inputs.items()
        ],
        [
            helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), ["n", None])
            for name in outputs
        ],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=9)
    onnx.checker.check_model(model)
    onnx.save_model(model, path)
    return path


@cache
def digits() -> tuple[Array, Array]:
    """All 1,797 digits, pixels in [0, 1], in a shuffled order."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    return (x[order] / 16).astype(np.float32), y[order]


@cache
def diabetes() -> tuple[Array, Array]:
    """442 rows, 10 features."""
    x, y = load_diabetes(return_X_y=True)
    return x.astype(np.float32), y


@cache
def digits_mlp() -> tuple[Array, ...]:
    """Weights of a small network trained a little on the first 900 digits: w1, b1, w2, b2."""
    x, y = digits()
    network = MLPClassifier((24,), batch_size=32, random_state=0, learning_rate_init=0.01)
    for _ in range(3):
        network.partial_fit(x[:900], y[:900], classes=np.arange(10))
    (w1, w2), (b1, b2) = network.coefs_, network.intercepts_
    return tuple(array.astype(np.float32) for array in (w1, b1, w2, b2))


def mlp_weights() -> dict[str, Array]:
    """Those of `digits_mlp` by the names that `mlp_nodes` uses."""
    return dict(zip(("w1", "b1", "w2", "b2"), digits_mlp(), strict=True))


def mlp_nodes(result: str = "scores") -> list[NodeProto]:
    """Input `image` [n, 64], embedding `hidden` [n, 24], output `result` [n, 10]."""
    return [
        helper.make_node("Gemm", ["image", "w1", "b1"], ["before"]),
        helper.make_node("Relu", ["before"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "w2", "b2"], [result]),
    ]


def digits_head(path: Path) -> Path:
    """The plain network."""
    return save(path, mlp_nodes(), {"image": ["n", 64]}, ["scores"], mlp_weights())


def ridge(path: Path) -> Path:
    """A linear model of the diabetes data, which has no embedding."""
    x, y = diabetes()
    linear = Ridge(alpha=0.1).fit(x[:221], y[:221])
    weights = {
        "w": linear.coef_.reshape(-1, 1).astype(np.float32),
        "b": np.array([linear.intercept_], np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["features", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["value"]),
    ]
    return save(path, nodes, {"features": [None, 10]}, ["value"], weights)
