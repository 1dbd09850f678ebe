"""A small model for speed: scikit-learn's digits, 64 inputs, 64 hidden units, 10 classes."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from benchmarks.quality.fit_command import fit

__all__ = ["digits", "fit_digits", "save_network"]


def digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """1,797 handwritten digits: pixels float32 [n, 64] in [0, 1], labels int64 [n]."""
    pixels, labels = load_digits(return_X_y=True)
    return (pixels / 16).astype(np.float32), labels.astype(np.int64)


def fit_digits(work: Path) -> Path:
    """A store with the bundle `digits` (d = 64, L = 10), made anew."""
    pixels, labels = digits()
    network = MLPClassifier((64,), max_iter=30, random_state=0, early_stopping=True)
    network.fit(pixels, labels)
    base = work / "digits.onnx"
    base.parent.mkdir(parents=True, exist_ok=True)
    save_network(base, network)
    options = ["--whiten", "no"]
    fit(work, base, {"pixels": pixels, "y": labels}, store=work / "store", name="digits",
        options=options)  # fmt: skip
    return work / "store"


def save_network(path: Path, network: MLPClassifier, *, probabilities: bool = False) -> None:
    """Writes a network with one hidden layer, pixels `[n, 64]` to `logits` `[n, 10]`.

    With `probabilities` a softmax follows, and the output is called `scores`.
    """
    constants = [
        numpy_helper.from_array(values.astype(np.float32), f"{name}{layer}")
        for name, layers in (("w", network.coefs_), ("b", network.intercepts_))
        for layer, values in enumerate(layers)
    ]
    nodes = [
        helper.make_node("Gemm", ["pixels", "w0", "b0"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "w1", "b1"], ["logits"]),
    ]
    if probabilities:
        nodes.append(helper.make_node("Softmax", ["logits"], ["scores"]))
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 64])
    output = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, ["n", 10])
    graph = helper.make_graph(nodes, "digits", [pixels], [output], constants)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path
    )
