from pathlib import Path

import numpy as np
import pytest
from resmem_service.fit.ef_tuning import LOST, choose_ef
from resmem_service.memory.memory import ResidualMemory
from resmem_service.memory.rows import MemoryShape, SegmentRows
from resmem_service.memory.search.soft_knn import SoftKnn
from resmem_service.memory.segments.build import build_segment
from resmem_service.memory.segments.graph_settings import GraphSettings

from tests.fit.models import Array, digits

X = digits()[0]


def segment(path: Path, embeddings: Array, graph: GraphSettings) -> Path:
    n = len(embeddings)
    rows = SegmentRows(
        embeddings=embeddings,
        residuals=np.zeros((n, 1), np.float32),
        targets=np.zeros(n, np.int32),
        sequences=-1 - np.arange(n),
        weights=np.ones(n, np.float32),
    )
    build_segment(path, rows, graph, MemoryShape(embeddings.shape[1], 1, "classification"))
    return path


def choose(path: Path, memories: Array, queries: Array, k: int, own: int = 0) -> tuple[int, float]:
    shape = MemoryShape(memories.shape[1], 1, "classification")
    return choose_ef(path, shape, memories, queries, SoftKnn(k, 1.0), own=own)


def test_a_good_graph_needs_little_but_never_less_than_k(tmp_path: Path) -> None:
    path = segment(tmp_path / "s", X[:900], GraphSettings(threads=1))
    ef, recall = choose(path, X[:900], X[900:], 5)
    assert ef == 32
    assert recall >= 0.98
    assert choose(path, X[:900], X[900:], 53)[0] >= 53


def test_a_poor_graph_needs_more(tmp_path: Path) -> None:
    """White noise in many dimensions with few links: the hardest there is."""
    noise = np.random.default_rng(0).normal(size=(4000, 64)).astype(np.float32)
    path = segment(tmp_path / "s", noise[:3800], GraphSettings(m=4, ef_construction=20, threads=1))
    ef, recall = choose(path, noise[:3800], noise[3800:], 10)
    assert ef > 128
    assert 0 < recall <= 1


def test_a_search_that_loses_some_queries_whole_is_not_enough(tmp_path: Path) -> None:
    """Many clusters and few links: most queries are answered in full, some not at all."""
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(400, 24)) * 30
    rows = (centres.repeat(10, axis=0) + rng.normal(size=(4000, 24))).astype(np.float32)
    path = segment(tmp_path / "s", rows, GraphSettings(m=4, ef_construction=16, threads=1))
    queries = (centres + rng.normal(size=centres.shape)).astype(np.float32)
    shape = MemoryShape(24, 1, "classification")
    memory = ResidualMemory.open(None, fitted=path, shape=shape)
    ef, _ = choose(path, rows, queries, 8)
    exact = np.sqrt(((queries[:, None] - rows[None]) ** 2).sum(axis=2))
    farthest = np.sort(exact, axis=1)[:, 7]

    def lost(ef: int) -> float:
        found = memory.correct(queries, SoftKnn(8, 1.0, ef=ef)).distances
        return float(((found > farthest[:, None] * 1.00001).sum(axis=1) > 4).mean())

    assert lost(32) > LOST
    assert lost(ef) <= LOST or ef == 400
    memory.close()


def test_copies_count_as_found_whichever_is_named(tmp_path: Path) -> None:
    copies = np.repeat(X[:30], 20, axis=0)
    path = segment(tmp_path / "s", copies, GraphSettings(threads=1))
    assert choose(path, copies, X[:30], 10)[1] == pytest.approx(1.0)


def test_k_above_the_number_of_memories_is_no_trouble(tmp_path: Path) -> None:
    path = segment(tmp_path / "s", X[:40], GraphSettings(threads=1))
    assert choose(path, X[:40], X[40:60], 120) == (120, 1.0)


def test_finding_oneself_is_no_merit(tmp_path: Path) -> None:
    """In white noise a graph this poor still finds each memory itself."""
    noise = np.random.default_rng(0).normal(size=(2000, 64)).astype(np.float32)
    path = segment(tmp_path / "s", noise, GraphSettings(m=12, ef_construction=80, threads=1))
    asked = noise[:200]
    easy, _ = choose(path, noise, asked, 1)
    hard, _ = choose(path, noise, asked, 1, own=200)
    assert easy < hard
