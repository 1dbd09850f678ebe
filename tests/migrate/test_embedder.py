"""A batch sorted out: what fits bit for bit as the server would have it, what does not by name."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from resmem_service.bundle.manifest import Manifest
from resmem_service.errors import NotReady
from resmem_service.inference.base_model import BaseModel
from resmem_service.inference.rows import Rows
from resmem_service.inference.tensor_spec import TensorSpec
from resmem_service.memory.journal.journal import MemoryRecord, StoredMemory
from resmem_service.migrate.embedder import Embedded, Embedder
from resmem_service.migrate.translation import Translation

from tests.conftest import FittedModel, TwoVersions
from tests.fit.models import Array
from tests.fit.models import save as save_model

NOTHING = np.zeros(0, np.float32)


def memories(inputs: Array, targets: Array, name: str = "pixels") -> list[StoredMemory]:
    """As the journal has them; every third row is of another source."""
    blobs = Rows({name: inputs}).encode()
    return [
        StoredMemory(
            MemoryRecord(
                id=f"id-{row}",
                sequence=row + 1,
                source="third" if row % 3 == 2 else None,
                target=targets[row].tolist(),
                weight=1.0 + row,
                created_ms=1000 + row,
            ),
            blobs[row],
            NOTHING,
            NOTHING,
        )
        for row in range(len(inputs))
    ]


def embedder(old: Manifest, new: Manifest, model: Path) -> Embedder:
    base = BaseModel(model, inputs=new.inputs, provider="cpu")
    base.warm_up(4)
    return Embedder(base, new, Translation(old, new))


def fitting(embedded: Embedded) -> list[str]:
    return [str(id) for part in embedded.arrivals for id in part.memories.ids]


def unfit(embedded: Embedded) -> dict[str, str]:
    return {memory.record.id: reason for memory, reason in embedded.unfit}


@pytest.fixture(scope="module")
def larger(digits_twice: TwoVersions) -> Embedder:
    two = digits_twice
    return embedder(two.old.manifest, two.new.manifest, two.new.model_path)


def test_what_fits_is_as_the_server_would_have_it(
    digits_twice: TwoVersions, larger: Embedder
) -> None:
    inputs, targets = digits_twice.inputs[:40], digits_twice.targets[:40]
    embedded = larger.embed(memories(inputs, targets))
    assert embedded.unfit == []
    assert fitting(embedded) == [f"id-{row}" for row in range(40)]
    assert [part.memories.source for part in embedded.arrivals[:3]] == [None, "third", None]
    output = BaseModel(
        digits_twice.new.model_path, inputs=digits_twice.new.manifest.inputs, provider="cpu"
    ).run(Rows({"pixels": inputs}))
    parts = [part.memories for part in embedded.arrivals]
    found = np.concatenate([part.embeddings for part in parts])
    assert found.tobytes() == output.embeddings.tobytes()
    found_targets = np.concatenate([part.targets for part in parts])
    assert found_targets.tolist() == (9 - targets).tolist()
    remaining = np.concatenate([part.residuals for part in parts])
    assert np.abs(remaining.sum(axis=1)).max() < 1e-6
    assert (remaining.argmax(axis=1) == found_targets).all()
    assert np.concatenate([part.weights for part in parts]).tolist() == list(range(1, 41))
    assert [time for part in parts for time in part.created_ms or ()] == list(range(1000, 1040))


def test_what_does_not_fit_keeps_nobody_out(digits_twice: TwoVersions, larger: Embedder) -> None:
    batch = memories(digits_twice.inputs[:9], digits_twice.targets[:9])
    batch[0] = replace(batch[0], input=b"\1\1nonsense")
    batch[4] = replace(batch[4], record=replace(batch[4].record, target=11))
    (narrow,) = memories(digits_twice.inputs[:1, :63], digits_twice.targets)
    batch[8] = replace(batch[8], input=narrow.input)
    embedded = larger.embed(batch)
    assert fitting(embedded) == [f"id-{row}" for row in (1, 2, 3, 5, 6, 7)]
    reasons = unfit(embedded)
    assert list(reasons) == ["id-0", "id-4", "id-8"]
    assert "no readable header" in reasons["id-0"]
    assert "class '11'" in reasons["id-4"]
    assert "63" in reasons["id-8"]


def test_a_row_that_the_model_has_no_number_for(digits: FittedModel, tmp_path: Path) -> None:
    """Log: minus infinity at 0, NaN below it."""
    nodes = [
        helper.make_node("Log", ["pixels"], ["embedding"]),
        helper.make_node("Identity", ["embedding"], ["logits"]),
    ]
    model = save_model(
        tmp_path / "log.onnx", nodes, {"pixels": ["n", 10]}, ["logits", "embedding"], {}
    )
    old = digits.bundle.manifest
    ten = old.model_copy(
        update={
            "inputs": [TensorSpec("pixels", "float32", (10,))],
            "embedding": old.embedding.model_copy(update={"dim": 10}),
        }
    )
    inputs = np.ones((5, 10), np.float32)
    inputs[1, 0], inputs[3, 3] = 0, -1
    embedded = embedder(ten, ten, model).embed(memories(inputs, digits.targets))
    assert fitting(embedded) == ["id-0", "id-2", "id-4"]
    assert set(unfit(embedded).values()) == {"the model answers it with NaN or infinity"}


def test_shapes_of_a_dynamic_axis(digits: FittedModel, tmp_path: Path) -> None:
    """Memories of different lengths run apart and come out in their old order."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["embedding"], axes=[1], keepdims=1),
        helper.make_node("MatMul", ["embedding", "w"], ["logits"]),
    ]
    weights = {"w": np.ones((1, 10), np.float32)}
    model = save_model(
        tmp_path / "mean.onnx", nodes, {"x": ["n", "length"]}, ["logits", "embedding"], weights
    )
    old = digits.bundle.manifest
    free = old.model_copy(
        update={
            "inputs": [TensorSpec("x", "float32", (None,))],
            "embedding": old.embedding.model_copy(update={"dim": 1}),
        }
    )
    batch = [
        replace(memories(np.full((1, 1 + row % 3), row, np.float32), digits.targets, "x")[0])
        for row in range(7)
    ]
    batch = [
        replace(memory, record=replace(memory.record, id=f"id-{row}"))
        for row, memory in enumerate(batch)
    ]
    embedded = embedder(free, free, model).embed(batch)
    assert fitting(embedded) == [f"id-{row}" for row in range(7)]
    (part,) = embedded.arrivals
    assert part.memories.embeddings[:, 0].tolist() == list(range(7))


def test_a_regression(diabetes: FittedModel) -> None:
    manifest = diabetes.bundle.manifest
    batch = memories(diabetes.inputs[:5], diabetes.targets[:5], "pixels")
    batch[2] = replace(batch[2], record=replace(batch[2].record, target=[float("inf")]))
    embedded = embedder(manifest, manifest, diabetes.bundle.model_path).embed(batch)
    assert fitting(embedded) == ["id-0", "id-1", "id-3", "id-4"]
    assert "finite" in unfit(embedded)["id-2"]
    halves = manifest.model_copy(update={"residuals": "float16"})
    batch[2] = replace(batch[2], record=replace(batch[2].record, target=[1e6]))
    embedded = embedder(manifest, halves, diabetes.bundle.model_path).embed(batch)
    assert unfit(embedded) == {"id-2": "a residual is too large for float16"}


def test_a_model_that_stopped_working_blames_no_row(
    digits_twice: TwoVersions, larger: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def run(self, *_: object) -> None:
            raise RuntimeError("the device is lost")

    monkeypatch.setattr(larger._model, "_session", Broken())
    with pytest.raises(NotReady, match="the device is lost"):
        larger.embed(memories(digits_twice.inputs[:9], digits_twice.targets[:9]))
