"""The bundle that ships: real data, a real model, what a newcomer sees first."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from resmem_service.bundle.store import Bundle, ModelStore
from resmem_service.inference.base_model import BaseModel
from resmem_service.inference.predictor import Predictor
from resmem_service.inference.residuals import base_prediction
from resmem_service.inference.rows import Rows
from resmem_service.memory.memory import ResidualMemory

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples" / "fashion"
SAMPLE = np.load(ROOT / "tests" / "data" / "fashion_mnist_test_500.npz")
MOST_BYTES = 8_000_000


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return ModelStore(ROOT / "model_store").resolve(None)


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> BaseModel:
    return BaseModel(bundle.model_path, inputs=bundle.manifest.inputs, provider="cpu")


@pytest.fixture
def memory(bundle: Bundle, tmp_path: Path) -> Iterator[ResidualMemory]:
    shape = bundle.manifest.memory_shape()
    memory = ResidualMemory.open(tmp_path, fitted=bundle.memories_path, shape=shape)
    yield memory
    memory.close()


def test_every_file_is_what_the_manifest_says_and_the_whole_is_small(bundle: Bundle) -> None:
    bundle.check()
    bundle.verify()
    files = [path for path in bundle.path.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES


def test_the_memory_helps_on_images_that_nothing_was_chosen_on(
    bundle: Bundle, model: BaseModel, memory: ResidualMemory
) -> None:
    parameters = bundle.manifest.parameters
    output = model.run(Rows({"image": SAMPLE["images"]}))
    base = base_prediction(output.logits, "classification", parameters.temperature)
    scores = base + memory.correct(output.embeddings, parameters.rule()).residuals
    right = SAMPLE["labels"]
    assert (base.argmax(axis=1) == right).mean() > 0.8
    assert (scores.argmax(axis=1) == right).mean() > (base.argmax(axis=1) == right).mean()
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)


def test_the_graph_finds_nearly_every_true_neighbour(
    bundle: Bundle, model: BaseModel, memory: ResidualMemory
) -> None:
    rule = bundle.manifest.parameters.rule()
    queries = model.run(Rows({"image": SAMPLE["images"]})).embeddings
    found = memory.correct(queries, rule).distances
    squared = ((queries[:, None] - stored_vectors(bundle)[None]) ** 2).sum(axis=2)
    farthest = np.sqrt(np.partition(squared, rule.k - 1, axis=1)[:, rule.k - 1])
    assert (found <= farthest[:, None] * (1 + 1e-5)).mean() >= 0.98


def stored_vectors(bundle: Bundle) -> NDArray[np.float32]:
    """The embeddings in the graph file, read by hnswlib's documented layout and not by us."""
    path = bundle.memories_path / "graph.hnsw"
    _, _, count, _, _, _ = np.fromfile(path, "<u8", 6)
    (links,) = np.fromfile(path, "<u8", 1, offset=64)
    record = np.dtype(
        [
            ("links", "<u4", (int(links) + 1,)),
            ("vector", "<f4", (bundle.manifest.embedding.dim,)),
            ("label", "<u8"),
        ]
    )
    vectors: NDArray[np.float32] = np.fromfile(path, record, int(count), offset=96)["vector"]
    return vectors


def test_the_example_of_the_readme_teaches_it(
    bundle: Bundle, model: BaseModel, memory: ResidualMemory
) -> None:
    manifest = bundle.manifest
    assert manifest.classes is not None
    question = json.loads((EXAMPLES / "predict.json").read_text())
    lesson = json.loads((EXAMPLES / "memorize.json").read_text())
    assert question["inputs"] == lesson["inputs"]
    assert lesson["weights"] == [manifest.teaching_weight]
    label = manifest.classes.index(lesson["targets"][0])

    async def converse() -> tuple[int, int, Any]:
        predictor = Predictor(
            model,
            memory,
            task=manifest.task,
            temperature=manifest.parameters.temperature,
            rule=manifest.parameters.rule(),
        )
        predictor.start()
        rows = Rows.convert(question["inputs"], manifest.inputs)
        before = await predictor.predict(rows)
        await predictor.memorize(
            rows,
            targets=np.array([label], np.int32),
            ids=lesson["ids"],
            weights=np.array(lesson["weights"]),
            source=lesson["source"],
        )
        after = await predictor.predict(rows)
        await predictor.close()
        first = memory.records.describe([int(after.correction.sequences[0, 0])])[0]
        return int(before.scores[0].argmax()), int(after.scores[0].argmax()), first

    before, after, first = asyncio.run(converse())
    assert before != label
    assert after == label
    assert first.id == lesson["ids"][0]
