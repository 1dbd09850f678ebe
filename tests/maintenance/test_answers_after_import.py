"""What a state answers that the file of another one was imported into."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from resmem_service.maintenance.export import export_memories
from resmem_service.maintenance.importer import import_memories
from resmem_service.memory.journal.sqlite.snapshot import open_snapshot
from resmem_service.memory.memory import ResidualMemory
from resmem_service.memory.options import MemoryOptions
from resmem_service.memory.search.soft_knn import Correction, SoftKnn
from resmem_service.memory.segments.folders import StateFolders
from resmem_service.memory.segments.graph_file import GraphVectors
from resmem_service.progress import Silent

from tests.conftest import FittedModel
from tests.maintenance.examples import digit_memories

TAUGHT, FORGOTTEN = 600, 40
GROWING, SEALED = 4 << 20, 1


def opened(digits: FittedModel, state: Path, growing_bytes: int) -> ResidualMemory:
    manifest = digits.bundle.manifest
    return ResidualMemory.open(
        state,
        fitted=digits.bundle.memories_path,
        shape=manifest.memory_shape(),
        options=MemoryOptions(growing_bytes=growing_bytes, graph=manifest.graph_settings()),
    )


def queries(digits: FittedModel) -> NDArray[np.float32]:
    return digit_memories(digits, range(TAUGHT, 890)).embeddings


def rule(digits: FittedModel) -> SoftKnn:
    """As narrow as a search gets, so that graphs miss neighbours."""
    return replace(digits.bundle.manifest.parameters.rule(), k=10, ef=10)


def taught_and_imported(
    digits: FittedModel, tmp_path: Path, first: int, second: int
) -> list[Correction]:
    """The answers of a state, and of the one that its memories were imported into."""
    answers = []
    for name, growing_bytes in (("first", first), ("second", second)):
        memory = opened(digits, tmp_path / name, growing_bytes)
        if name == "first":
            memory.append(digit_memories(digits, range(TAUGHT))).result(60)
            for row in range(0, 15 * FORGOTTEN, 15):
                assert memory.forget(f"digit-{row}")
        else:
            export_memories(
                digits.bundle,
                StateFolders(tmp_path / "first"),
                tmp_path / "m.jsonl",
                source=None,
                vectors=True,
                skip_bad=False,
                force=False,
                progress=Silent(),
            )
            import_memories(
                digits.bundle,
                memory,
                tmp_path / "m.jsonl",
                skip_bad=False,
                provider="cpu",
                progress=Silent(),
            )
        answers.append(memory.correct(queries(digits), rule(digits)))
        memory.close()
    return answers


def farthest(digits: FittedModel, state: Path) -> NDArray[np.float64]:
    """The distance of the k-th nearest of all memories, by brute force."""
    bundle = digits.bundle
    rows = bundle.manifest.memories
    dim = bundle.manifest.embedding.dim
    fitted = GraphVectors(bundle.memories_path / "graph.hnsw", dim, rows).take(np.arange(rows))
    with open_snapshot(StateFolders(state).journal) as snapshot:
        online = np.stack([memory.embedding for memory in snapshot.stored()])
    everything = np.concatenate([fitted, online]).astype(float)
    squared = ((queries(digits)[:, None].astype(float) - everything[None]) ** 2).sum(axis=2)
    found: NDArray[np.float64] = np.sqrt(np.sort(squared, axis=1)[:, rule(digits).k - 1])
    return found


def test_growing_memories_answer_the_same_to_the_last_bit(
    digits: FittedModel, tmp_path: Path
) -> None:
    before, after = taught_and_imported(digits, tmp_path, GROWING, GROWING)
    assert np.array_equal(before.residuals, after.residuals)
    assert np.array_equal(before.distances, after.distances)
    assert np.array_equal(before.weights, after.weights)


@pytest.mark.timeout(300)
def test_sealed_ones_differ_only_where_a_graph_misses_a_neighbour(
    digits: FittedModel, tmp_path: Path
) -> None:
    """One row of 2,000 differed by .009: which of the k nearest are missed depends on the graph."""
    before, after = taught_and_imported(digits, tmp_path, SEALED, GROWING)
    limit = farthest(digits, tmp_path / "first")[:, None] * (1 + 1e-9)
    whole = [(one.distances <= limit).all(axis=1) for one in (before, after)]
    same = np.abs(before.residuals - after.residuals).max(axis=1) < 1e-6
    assert same[whole[0] & whole[1]].all()
    # What is missed in both is missed in the bundle's graph, which both have.
    for one in (before, after):
        assert (one.distances <= limit).mean() > 0.97
    assert (whole[0] & whole[1]).mean() > 0.8
