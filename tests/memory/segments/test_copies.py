from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from resmem_service.errors import CorruptFile
from resmem_service.memory.rows import SegmentRows
from resmem_service.memory.search import _kernel
from resmem_service.memory.segments.build import build_segment
from resmem_service.memory.segments.copies import (
    COPY_ARRAYS,
    first_of_equals,
    read_firsts,
    write_copies,
)
from resmem_service.memory.segments.graph_file import GraphVectors
from resmem_service.memory.segments.graph_settings import GraphSettings
from resmem_service.memory.segments.sealed_segment import SealedSegment

from tests.memory.examples import LABELS, PIXELS, RESIDUALS, SHAPE

GRAPH = GraphSettings(threads=1, ef=50)
STRETCH = np.random.default_rng(0).uniform(0.5, 2, 64).astype(np.float32)
DISTINCT = PIXELS * STRETCH
"""Digits without ties: the pixels alone are small integers."""


def rows_of(embeddings: NDArray[np.float32], sequences: NDArray[np.int64]) -> SegmentRows:
    n = len(embeddings)
    at = np.arange(n) % len(PIXELS)
    return SegmentRows(
        embeddings, RESIDUALS[at], LABELS[at], sequences, np.linspace(1, 2, n, dtype=np.float32)
    )


def built(
    folder: Path, embeddings: NDArray[np.float32], sequences: NDArray[np.int64] | None = None
) -> SealedSegment:
    rising = np.arange(1, len(embeddings) + 1)
    rows = rows_of(embeddings, rising if sequences is None else sequences)
    build_segment(folder, rows, GRAPH, SHAPE)
    return SealedSegment.open(folder, SHAPE)


def with_copies(share: float, n: int = 1700, seed: int = 0) -> NDArray[np.int64]:
    """Which of the digits each of n memories is: this share of them is the first one."""
    copies = int(share * n)
    rows = np.concatenate([np.arange(1, n - copies + 1), np.zeros(copies, np.int64)])
    return np.random.default_rng(seed).permutation(rows)


def expected(
    query: NDArray[np.float32],
    embeddings: NDArray[np.float32],
    sequences: NDArray[np.int64],
    k: int,
) -> list[int]:
    """The k nearest by brute force, of equal distances the newest first."""
    distances = np.sqrt(((embeddings.astype(float) - query) ** 2).sum(axis=1))
    return [int(s) for s in sequences[np.lexsort((-sequences, distances))[:k]]]


def unsketched(folder: Path, embeddings: NDArray[np.float32]) -> SealedSegment:
    """One row far outside: a byte is too coarse then, and the vectors themselves are searched."""
    far = np.concatenate([embeddings, np.full((1, 64), 1e6, np.float32)])
    segment = built(folder, far)
    assert not (folder / "sketches.npy").exists()
    return segment


@pytest.mark.parametrize("share", [0.1, 0.3, 0.9])
@pytest.mark.parametrize("build", [built, unsketched])
def test_copies_of_one_input_hide_no_other_memory(
    tmp_path: Path,
    share: float,
    build: Callable[[Path, NDArray[np.float32]], SealedSegment],
) -> None:
    which = with_copies(share)
    segment = build(tmp_path / "s", DISTINCT[which])
    others = np.flatnonzero(which != 0)
    _, found, _, _ = _kernel.correct([segment.native], DISTINCT[which[others]], 10, 1, 50, 1.0, 0.0)
    assert np.mean(found[:, 0] == others + 1) > 0.999
    assert segment.recall == 1.0


@pytest.mark.parametrize("share", [0.3, 0.9])
@pytest.mark.parametrize("k", [1, 5, 20])
def test_the_k_nearest_are_those_of_brute_force(tmp_path: Path, share: float, k: int) -> None:
    which = with_copies(share, 1000)
    embeddings, sequences = DISTINCT[which], 3 * np.arange(1, 1001)
    segment = built(tmp_path / "s", embeddings, sequences)
    queries = DISTINCT[np.concatenate([[0], np.arange(1500, 1560)])]
    _, found, _, _ = _kernel.correct([segment.native], queries, 10, k, 200, 1.0, 0.0)
    right = [expected(query, embeddings, sequences, k) for query in queries]
    assert np.mean([list(a) == b for a, b in zip(found, right, strict=True)]) > 0.98
    assert list(found[0]) == right[0]


def test_forgotten_copies_give_way_to_older_ones_and_then_to_other_memories(
    tmp_path: Path,
) -> None:
    which = np.concatenate([np.arange(200), np.zeros(300, np.int64)])
    segment = built(tmp_path / "s", DISTINCT[which])
    alive = np.ones(500, bool)

    def check() -> None:
        _, found, _, weights = _kernel.correct([segment.native], DISTINCT[:1], 10, 7, 50, 9.0, 0.0)
        left = np.flatnonzero(alive)
        right = expected(DISTINCT[0], DISTINCT[which[left]], left + 1, 7)
        assert list(found[0]) == right
        assert weights[0].sum() == pytest.approx(1)

    check()
    rng = np.random.default_rng(3)
    copies = np.flatnonzero(which == 0)
    for chosen in np.array_split(rng.permutation(copies), 40):
        for row in chosen:
            assert segment.forget(int(row) + 1)
            alive[row] = False
        check()
    assert segment.living_rows == 199
    segment.native.forget_until(150)
    alive[:150] = False
    check()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_mixture_of_copies_and_dead_rows(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    which = np.array(data.draw(st.lists(st.integers(0, 12), min_size=1, max_size=60)))
    falling = data.draw(st.booleans())
    n = len(which)
    sequences = -1 - np.arange(n) if falling else np.arange(1, n + 1)
    segment = built(tmp_path_factory.mktemp("mixture") / "s", DISTINCT[which], sequences)
    assert segment.native.elements == len(set(which.tolist()))
    dead = data.draw(st.sets(st.integers(0, n - 1)))
    for row in dead:
        segment.forget(int(sequences[row]))
    left = np.array(sorted({*range(n)} - dead), np.int64)
    k = data.draw(st.integers(1, 70))
    query = DISTINCT[data.draw(st.integers(0, 20))]
    _, found, _, _ = _kernel.correct([segment.native], query[None], 10, k, 100, 9.0, 0.0)
    right = expected(query, DISTINCT[which[left]], sequences[left], k) if len(left) else []
    assert list(found[0]) == right + [0] * (k - len(right))


def test_a_hundred_thousand_copies_are_not_walked_over_by_every_query(tmp_path: Path) -> None:
    n = 100_000
    which = np.zeros(n + 50, np.int64)
    which[:50] = np.arange(1, 51)
    zeros = np.zeros((n + 50, 10), np.float32)
    rows = SegmentRows(
        DISTINCT[which], zeros, which.astype(np.int32), np.arange(n + 50), zeros[:, 0] + 1
    )
    build_segment(tmp_path / "s", rows, GRAPH, SHAPE)
    segment = SealedSegment.open(tmp_path / "s", SHAPE)
    assert segment.native.elements == 51
    assert segment.nbytes < 21 * n + zeros.nbytes + 200_000  # embeddings would be 256 more

    def steps() -> float:
        from time import thread_time

        begun = thread_time()
        for _ in range(200):
            _kernel.correct([segment.native], DISTINCT[:1], 10, 5, 50, 1.0, 0.0)
        return thread_time() - begun

    before = steps()
    # All but the oldest: to walk over the dead ones would take a thousand times as long.
    for row in range(51, n + 50):
        segment.native.forget(row)
    _, found, _, _ = _kernel.correct([segment.native], DISTINCT[:1], 10, 2, 50, 1.0, 0.0)
    assert found[0, 0] == 50
    assert steps() < 20 * before


def test_a_graph_is_carried_on_with_copies_of_what_it_holds(tmp_path: Path) -> None:
    which = np.concatenate([with_copies(0.3, 600), with_copies(0.5, 300, seed=1)])
    embeddings = DISTINCT[which]
    base = built(tmp_path / "base", embeddings[:600])
    more = rows_of(embeddings[600:], np.arange(601, 901))
    build_segment(tmp_path / "s", more, GRAPH, SHAPE, base=base)
    segment = SealedSegment.open(tmp_path / "s", SHAPE)
    assert segment.rows == 900
    assert segment.native.elements == len(np.unique(which))
    vectors = GraphVectors(tmp_path / "s/graph.hnsw", 64, 900)
    assert np.array_equal(vectors.take(np.arange(900)), embeddings)
    for query in DISTINCT[[0, 1, 1500, 1600]]:
        _, found, _, _ = _kernel.correct([segment.native], query[None], 10, 9, 100, 1.0, 0.0)
        assert list(found[0]) == expected(query, embeddings, np.arange(1, 901), 9)


def test_a_graph_from_before_copies_were_one_element_is_not_carried_on(tmp_path: Path) -> None:
    base = SealedSegment.open(old_segment(tmp_path / "old", DISTINCT[with_copies(0.3)]), SHAPE)
    assert base.recall is None
    assert base.native.elements == base.rows
    more = rows_of(DISTINCT[:50], np.arange(1701, 1751))
    build_segment(tmp_path / "s", more, GRAPH, SHAPE, base=base)
    segment = SealedSegment.open(tmp_path / "s", SHAPE)
    assert segment.rows == 1750
    assert segment.native.elements == 1191
    assert segment.recall == 1.0


def test_rows_of_zeros_are_one_element_whatever_their_sign(tmp_path: Path) -> None:
    embeddings = DISTINCT[:100].copy()
    embeddings[10:20] = 0.0
    embeddings[20:30] = -0.0
    assert built(tmp_path / "s", embeddings).native.elements == 81


def test_a_segment_of_distinct_rows_has_no_table_of_copies(tmp_path: Path) -> None:
    built(tmp_path / "s", DISTINCT[:300])
    assert not any((tmp_path / "s" / f"{name}.npy").exists() for name in COPY_ARRAYS)


def test_hashes_that_clash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    class Zeros:
        def integers(self, *_: object) -> NDArray[np.uint64]:
            return np.zeros(64, np.uint64)

    which = with_copies(0.3, 200)
    right = first_of_equals(DISTINCT[which])
    monkeypatch.setattr(
        "resmem_service.memory.segments.copies.np.random.default_rng", lambda: Zeros()
    )
    # With factors of 1 a row and the same numbers in another order clash.
    found = first_of_equals(np.concatenate([DISTINCT[which], np.roll(DISTINCT[:1], 1, axis=1)]))
    assert np.array_equal(found[:200], right)
    assert found[200] == 200


@given(st.lists(st.integers(0, 5), min_size=1), st.booleans())
def test_the_table_of_copies_says_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, which: list[int], falling: bool
) -> None:
    folder = tmp_path_factory.mktemp("table")
    first = np.array([which.index(one) for one in which])
    sequences = np.arange(len(which)) * (-1 if falling else 1)
    write_copies(folder, first, sequences)
    assert np.array_equal(read_firsts(folder, len(which)), first)
    assert (folder / "copies.npy").exists() == (len({*which}) < len(which))


@pytest.mark.parametrize(
    ("groups", "copies"),
    [
        ([[0, 2]], [0, 1, 2]),
        ([[0, 4]], [0, 1, 2]),
        ([[0, 1]], [0]),
        ([[0, 2], [0, 4]], [0, 1, 2, 3]),
        ([[400, 2]], [0, 1]),
        ([[0, 3]], [0, 1, 2]),
        ([0, 2], [0, 1]),
    ],
)
def test_a_table_that_contradicts_itself_is_refused_by_name(
    tmp_path: Path, groups: list[object], copies: list[int]
) -> None:
    folder = tmp_path / "s"
    built(folder, DISTINCT[with_copies(0.3, 200)])
    rewrite(folder, groups=np.array(groups, np.uint32), copies=np.array(copies, np.uint32))
    with pytest.raises(CorruptFile, match=r"graph\.hnsw.*(equal|another number)|groups\.npy"):
        SealedSegment.open(folder, SHAPE)


def test_a_copy_out_of_range_is_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    built(folder, np.repeat(DISTINCT[:5], 4, axis=0))
    rewrite(folder, copies=np.full(20, 20, np.uint32))
    segment = SealedSegment.open(folder, SHAPE)
    with pytest.raises(_kernel.CorruptGraph, match="a copy is out of range"):
        _kernel.correct([segment.native], DISTINCT[:1], 10, 3, 50, 1.0, 0.0)
    with pytest.raises(CorruptFile, match="equal rows contradicts"):
        GraphVectors(folder / "graph.hnsw", 64, 20)


def rewrite(folder: Path, **arrays: NDArray[np.uint32]) -> None:
    import json

    content = json.loads((folder / "segment.json").read_text())
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
        content["files"][f"{name}.npy"]["bytes"] = (folder / f"{name}.npy").stat().st_size
    (folder / "segment.json").write_text(json.dumps(content))


def old_segment(folder: Path, embeddings: NDArray[np.float32]) -> Path:
    """As main built it before: every row an element, nothing asked, no recall written down."""
    import hashlib
    import json

    import hnswlib

    n = len(embeddings)
    rows = rows_of(embeddings, np.arange(1, n + 1))
    folder.mkdir()
    index = hnswlib.Index("l2", 64)
    index.init_index(n, M=16, ef_construction=200)
    index.add_items(embeddings, np.arange(n), num_threads=1)
    index.save_index(str(folder / "graph.hnsw"))
    for name in ("residuals", "targets", "sequences", "weights"):
        np.save(folder / f"{name}.npy", getattr(rows, name))
    files = {
        path.name: {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "bytes": path.stat().st_size,
        }
        for path in folder.iterdir()
    }
    description = {
        "format": 1, "rows": n, "dim": 64, "width": 10, "residuals": "float32", "files": files
    }  # fmt: skip
    (folder / "segment.json").write_text(json.dumps(description))
    return folder
