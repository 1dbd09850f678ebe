"""Bundles fitted on real data, once for each test process."""

import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from resmem_service.bundle.store import Bundle, ModelStore
from resmem_service.fit.fit import FitSettings, fit
from resmem_service.progress import Silent
from sklearn.datasets import load_diabetes, load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor

from tests.onnx_mlp import save_mlp

pytest_plugins = [
    "tests.plugins.environment",
    "tests.plugins.guard",
    "tests.plugins.hypothesis_profile",
    "tests.plugins.state",
]


@dataclass(frozen=True)
class FittedModel:
    """A store with one bundle, and rows that it has never seen."""

    store: Path
    bundle: Bundle
    inputs: NDArray[np.float32]
    """`[n, features]`, held out."""
    targets: NDArray[np.int64] | NDArray[np.float32]


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> FittedModel:
    """A small classifier of digits, 64 -> 32 -> 10, with 900 memories and some mistakes left."""
    data = load_digits()
    inputs = (data.data / 16).astype(np.float32)
    targets = data.target.astype(np.int64)
    model = MLPClassifier(hidden_layer_sizes=(32,), max_iter=15, random_state=0, batch_size=64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(inputs[:900], targets[:900])
    return _fitted(tmp_path_factory.mktemp("digits"), "digits", model, inputs, targets, 900)


@pytest.fixture(scope="session")
def diabetes(tmp_path_factory: pytest.TempPathFactory) -> FittedModel:
    """A small regression with one output, 10 -> 16 -> 1, with 300 memories."""
    data = load_diabetes()
    inputs = (data.data * 20).astype(np.float32)
    targets = (data.target[:, None] / 100).astype(np.float32)
    model = MLPRegressor(hidden_layer_sizes=(16,), max_iter=30, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(inputs[:300], targets[:300, 0])
    return _fitted(tmp_path_factory.mktemp("diabetes"), "diabetes", model, inputs, targets, 300)


@dataclass(frozen=True)
class TwoVersions:
    """A store with two versions of a classifier of digits, and rows that neither has seen."""

    store: Path
    old: Bundle
    """64 -> 32 -> 10, classes `0` to `9`."""
    new: Bundle
    """64 -> 80 -> 40 -> 10, better, classes `9` to `0`."""
    inputs: NDArray[np.float32]
    """`[897, 64]`."""
    targets: NDArray[np.int32]
    """`[897]`: the digits, which are the indices of the old version's classes."""


@pytest.fixture(scope="session")
def digits_twice(digits: FittedModel, tmp_path_factory: pytest.TempPathFactory) -> TwoVersions:
    """The network of `digits`, and a larger one whose outputs stand in the opposite order."""
    folder = tmp_path_factory.mktemp("digits-twice")
    shutil.copytree(digits.store, folder / "store")
    data = load_digits()
    inputs = (data.data / 16).astype(np.float32)
    model = MLPClassifier(hidden_layer_sizes=(80, 40), max_iter=25, random_state=1, batch_size=64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(inputs[:900], data.target[:900])
    *weights, last = model.coefs_
    *biases, last_bias = model.intercepts_
    save_mlp(folder / "base.onnx", [*weights, last[:, ::-1]], [*biases, last_bias[::-1]])
    np.savez(folder / "train.npz", x=inputs[:900], y=data.target[:900])
    names = [str(digit) for digit in reversed(range(10))]
    settings = FitSettings(
        model=folder / "base.onnx",
        data=str(folder / "train.npz"),
        store=folder / "store",
        name="digits",
        classes=names,
    )
    new = fit(settings, Silent())
    return TwoVersions(
        folder / "store",
        ModelStore(folder / "store").resolve("digits/1"),
        new,
        digits.inputs,
        digits.targets.astype(np.int32),
    )


def _fitted(
    folder: Path,
    name: str,
    model: MLPClassifier | MLPRegressor,
    inputs: NDArray[np.float32],
    targets: NDArray[np.int64] | NDArray[np.float32],
    rows: int,
) -> FittedModel:
    save_mlp(folder / "base.onnx", model.coefs_, model.intercepts_)
    np.savez(folder / "train.npz", x=inputs[:rows], y=targets[:rows])
    settings = FitSettings(
        model=folder / "base.onnx",
        data=str(folder / "train.npz"),
        store=folder / "store",
        name=name,
    )
    bundle = fit(settings, Silent())
    return FittedModel(folder / "store", bundle, inputs[rows:], targets[rows:])
