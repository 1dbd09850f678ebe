"""A segment as earlier versions built it: copies of one input cut off the memories behind them."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import hnswlib
import numpy as np
import pytest
from numpy.typing import NDArray
from resmem_service.maintenance.repair import repair
from resmem_service.maintenance.verification import verify_state
from resmem_service.memory.journal.journal import SegmentEntry
from resmem_service.memory.memory import ResidualMemory
from resmem_service.memory.observer import SilentMemoryObserver
from resmem_service.memory.options import MemoryOptions
from resmem_service.memory.segments.folders import StateFolders
from resmem_service.memory.segments.graph_file import GraphVectors
from resmem_service.memory.segments.lock import try_lock
from resmem_service.memory.segments.policy import SegmentPlan
from resmem_service.memory.segments.segment_builder import SegmentBuilder
from resmem_service.progress import Silent

from tests.conftest import FittedModel
from tests.maintenance.examples import Taught, digit_memories

ROWS, COPIES = 600, 420


@pytest.fixture
def poor(digits: FittedModel, tmp_path: Path) -> Taught:
    """A state with one segment, old-fashioned, that finds a part of its own memories."""
    taught = Taught(digits, StateFolders(tmp_path / "states/digits/1"))
    taught.folders.root.mkdir(parents=True)
    manifest = digits.bundle.manifest
    few = digit_memories(digits, range(150))
    at = np.arange(ROWS) % 150
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(ROWS, manifest.embedding.dim)).astype(np.float32)
    # In the midst of the others, whose nearest they are.
    embeddings[rng.permutation(ROWS)[:COPIES]] = 0
    memories = replace(
        few,
        ids=[f"row-{row}" for row in range(ROWS)],
        inputs=[few.inputs[row] for row in at],
        targets=few.targets[at],
        embeddings=embeddings,
        residuals=few.residuals[at],
        weights=few.weights[at],
        created_ms=None,
    )
    journal = taught.journal()
    journal.append([memories])
    with try_lock(taught.folders.lock) as lock:
        assert lock is not None
        SegmentBuilder(
            taught.folders,
            manifest.memory_shape(),
            manifest.graph_settings(),
            journal,
            SilentMemoryObserver(),
        ).carry_out(SegmentPlan(1, ROWS, [], None), [], lock)
    journal.close()
    as_before(taught.segment(1), manifest.embedding.dim)
    return taught


def as_before(folder: Path, dim: int) -> None:
    """Every row an element, nothing asked, no recall written down, no sketches."""
    rows = np.arange(len(np.load(folder / "sequences.npy")))
    vectors: NDArray[np.float32] = GraphVectors(folder / "graph.hnsw", dim, len(rows)).take(rows)
    index = hnswlib.Index("l2", dim)
    index.init_index(len(rows), M=16, ef_construction=200)
    index.add_items(vectors, rows, num_threads=1)
    for path in folder.iterdir():
        if path.stem not in ("residuals", "targets", "sequences", "weights", "segment"):
            path.unlink()
    index.save_index(str(folder / "graph.hnsw"))
    description = json.loads((folder / "segment.json").read_text())
    del description["recall"]
    description["files"] = {
        path.name: {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "bytes": path.stat().st_size,
        }
        for path in folder.iterdir()
        if path.name != "segment.json"
    }
    (folder / "segment.json").write_text(json.dumps(description))


def subjects(taught: Taught) -> list[str]:
    """Of the faults that `resmem verify` finds."""
    found = verify_state(taught.bundle, taught.folders, Silent())
    return [finding.subject for finding in found if finding.level == "fault"]


def opened(taught: Taught) -> ResidualMemory:
    manifest = taught.bundle.manifest
    return ResidualMemory.open(
        taught.folders.root,
        fitted=taught.bundle.memories_path,
        shape=manifest.memory_shape(),
        options=MemoryOptions(maintain=False, graph=manifest.graph_settings()),
    )


def test_verify_names_it_and_how_it_is_mended(poor: Taught) -> None:
    found = verify_state(poor.bundle, poor.folders, Silent())
    (fault,) = [finding for finding in found if finding.level == "fault"]
    assert fault.subject == "segment 00000001"
    assert "of its own memories: predictions miss the rest" in fault.detail
    assert fault.advice is not None
    assert "`resmem repair` or `resmem compact` builds it anew" in fault.advice


def test_repair_builds_it_anew(poor: Taught) -> None:
    manifest = poor.bundle.manifest
    repaired = repair(
        poor.folders,
        manifest.memory_shape(),
        forget_damaged=False,
        graph=manifest.graph_settings(),
    )
    assert repaired.rebuilt == [SegmentEntry(2, 1, ROWS, ROWS)]
    assert repaired.left == []
    assert subjects(poor) == []
    assert (poor.segment(2) / "copies.npy").exists()


def test_compact_builds_it_anew_and_memories_are_found_again(
    poor: Taught, caplog: pytest.LogCaptureFixture
) -> None:
    dim = poor.bundle.manifest.embedding.dim
    vectors = GraphVectors(poor.segment(1) / "graph.hnsw", dim, ROWS).take(np.arange(ROWS))
    distinct = np.flatnonzero(vectors.any(axis=1))
    rule = poor.bundle.manifest.parameters.rule()
    memory = opened(poor)

    def found() -> float:
        distances = memory.correct(vectors[distinct], rule).distances[:, 0]
        return float((distances == 0).mean())

    assert found() < 0.95
    memory.warm()
    assert memory.statistics().recall < 0.98
    assert "of its own rows: `resmem verify` says what to do" in caplog.text
    assert memory.compact() == 0
    assert found() == 1.0
    assert memory.statistics().recall == 1.0
    memory.close()
    assert subjects(poor) == []
