"""A real model for the tests: a multilayer perceptron on scikit-learn's digits, as served."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from resmem_service.inference.tensor_spec import TensorSpec
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier


@dataclass(frozen=True)
class Digits:
    """The trained model in two forms, and rows that it was not trained on."""

    path: Path
    specs: list[TensorSpec]
    classifier: MLPClassifier
    inputs: NDArray[np.float32]
    labels: NDArray[np.int32]


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    pixels, labels = load_digits(return_X_y=True)
    inputs = (pixels / 16).astype(np.float32)
    classifier = MLPClassifier((32,), max_iter=15, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few iterations on purpose: a base that errs
        classifier.fit(inputs[:1000], labels[:1000])
    path = tmp_path_factory.mktemp("digits") / "base.onnx"
    weights = [
        numpy_helper.from_array(array.astype(np.float32), name)
        for name, array in zip(
            ("w0", "w1", "b0", "b1"), classifier.coefs_ + classifier.intercepts_, strict=True
        )
    ]
    nodes = [
        helper.make_node("Gemm", ["pixels", "w0", "b0"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["embedding"]),
        helper.make_node("Gemm", ["embedding", "w1", "b1"], ["logits"]),
    ]
    save_model(path, nodes, {"pixels": (TensorProto.FLOAT, [64])}, 10, 32, weights)
    return Digits(
        path,
        [TensorSpec("pixels", "float32", (64,))],
        classifier,
        inputs[1000:],
        labels[1000:].astype(np.int32),
    )


def save_model(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, list[int | str]]],
    width: int,
    dim: int,
    weights: list[onnx.TensorProto],
) -> None:
    """Saves a graph with the two outputs of every served model."""
    graph = helper.make_graph(
        nodes,
        "base",
        [
            helper.make_tensor_value_info(name, kind, ["n", *shape])
            for name, (kind, shape) in inputs.items()
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", width]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", dim]),
        ],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


@pytest.fixture(scope="session")
def lookup(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with two inputs: a row of a table of 5, found by `index`, times `factor`.

    An index out of range fails in ONNX Runtime, whatever else is in the batch.
    """
    path = tmp_path_factory.mktemp("lookup") / "base.onnx"
    table = numpy_helper.from_array(np.arange(10, dtype=np.float32).reshape(5, 2), "table")
    nodes = [
        helper.make_node("Gather", ["table", "index"], ["row"]),
        helper.make_node("Mul", ["row", "factor"], ["embedding"]),
        helper.make_node("Neg", ["embedding"], ["logits"]),
    ]
    inputs: dict[str, tuple[int, list[int | str]]] = {
        "index": (TensorProto.INT64, []),
        "factor": (TensorProto.FLOAT, [1]),
    }
    save_model(path, nodes, inputs, 2, 2, [table])
    return path


LOOKUP_SPECS = [TensorSpec("index", "int64", ()), TensorSpec("factor", "float32", (1,))]


@pytest.fixture(scope="session")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers NaN to what is negative, and takes rows of any length."""
    path = tmp_path_factory.mktemp("roots") / "base.onnx"
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Sqrt", ["mean"], ["logits"]),
        helper.make_node("Identity", ["mean"], ["embedding"]),
    ]
    save_model(path, nodes, {"x": (TensorProto.FLOAT, ["length"])}, 1, 1, [])
    return path


ROOTS_SPECS = [TensorSpec("x", "float32", (None,))]
