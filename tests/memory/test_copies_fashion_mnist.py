"""Copies among real memories: Fashion-MNIST by the shipped model, where it is installed."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from resmem_service.bundle.store import ModelStore
from resmem_service.inference.base_model import BaseModel
from resmem_service.inference.rows import Rows
from resmem_service.memory.rows import SegmentRows
from resmem_service.memory.search import _kernel
from resmem_service.memory.segments.build import build_segment
from resmem_service.memory.segments.sealed_segment import SealedSegment

from benchmarks import fashion_mnist

BUNDLE = ModelStore(Path("model_store")).resolve(None)
ROWS = 6000
BATCH = 500


@pytest.fixture(scope="module")
def embeddings() -> NDArray[np.float32]:
    try:
        images = fashion_mnist.load("t10k", fashion_mnist.data_folder()).images[:ROWS]
    except fashion_mnist.DataMissing as missing:
        pytest.skip(str(missing))
    manifest = BUNDLE.manifest
    model = BaseModel(BUNDLE.model_path, inputs=manifest.inputs, provider="cpu")
    name = manifest.inputs[0].name
    return np.concatenate(
        [
            model.run(Rows({name: images[start : start + BATCH]})).embeddings
            for start in range(0, ROWS, BATCH)
        ]
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("share", [0.1, 0.3, 0.9])
def test_copies_of_one_image_hide_no_other(
    tmp_path: Path, embeddings: NDArray[np.float32], share: float
) -> None:
    """Before: 85 %, half and a tenth of the others were their own first neighbour."""
    manifest, shape = BUNDLE.manifest, BUNDLE.manifest.memory_shape()
    copies = int(share * ROWS)
    which = np.concatenate([np.arange(1, ROWS - copies + 1), np.zeros(copies, np.int64)])
    which = np.random.default_rng(0).permutation(which)
    residuals = shape.codec.encode(np.zeros((ROWS, shape.width), np.float32))
    rows = SegmentRows(
        embeddings[which],
        residuals,
        np.zeros(ROWS, np.int32),
        np.arange(1, ROWS + 1),
        np.ones(ROWS, np.float32),
    )
    build_segment(tmp_path / "s", rows, manifest.graph_settings(), shape)
    segment = SealedSegment.open(tmp_path / "s", shape)
    others = np.flatnonzero(which != 0)
    rule = manifest.parameters.rule()
    _, found, distances, _ = _kernel.correct(
        [segment.native],
        embeddings[which[others]],
        shape.width,
        rule.k,
        rule.ef,
        rule.sigma,
        rule.alpha,
    )
    assert np.mean(found[:, 0] == others + 1) > 0.999
    some = np.arange(0, len(others), max(1, len(others) // 200))
    asked = embeddings[which[others[some]]].astype(float)
    squared = ((asked[:, None] - embeddings[which][None]) ** 2).sum(axis=2)
    farthest = np.sqrt(np.partition(squared, rule.k - 1, axis=1)[:, rule.k - 1])
    assert (distances[some] <= farthest[:, None] * (1 + 1e-9)).mean() > 0.985
