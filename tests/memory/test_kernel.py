from pathlib import Path
from typing import Any

import hnswlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from resmem_service.memory.bounds import SMALLEST_WEIGHT
from resmem_service.memory.search import _kernel
from resmem_service.memory.search.codec import FLOAT32
from sklearn.datasets import load_digits

from tests.memory.reference import soft_knn

DIGITS = load_digits().data.astype(np.float32)
LABELS = load_digits().target


def bytes_of(residuals: NDArray[Any]) -> NDArray[np.uint8]:
    return FLOAT32.bytes_of(FLOAT32.encode(residuals.astype(np.float32)))


def growing(
    embeddings: NDArray[Any], residuals: NDArray[Any], importance: NDArray[Any], spare: int = 0
) -> _kernel.GrowingSegment:
    segment = _kernel.GrowingSegment(
        max(1, len(embeddings)) + spare,
        embeddings.shape[1],
        _kernel.Codec("float32", residuals.shape[1]),
    )
    segment.append(
        embeddings.astype(np.float32),
        bytes_of(residuals),
        importance.astype(np.float32),
        np.arange(1, len(embeddings) + 1),
    )
    return segment


def sealed(
    folder: Path, embeddings: NDArray[np.float32], residuals: NDArray[np.float32]
) -> _kernel.SealedSegment:
    index = hnswlib.Index("l2", embeddings.shape[1])
    index.init_index(len(embeddings), M=16, ef_construction=200)
    index.add_items(embeddings, np.arange(len(embeddings)))
    index.save_index(str(folder / "graph.hnsw"))
    return _kernel.SealedSegment(
        graph=np.memmap(folder / "graph.hnsw", np.uint8, "r"),
        codes=bytes_of(residuals),
        weights=np.ones(len(embeddings), np.float32),
        sequences=np.arange(1, len(embeddings) + 1),
        dim=embeddings.shape[1],
        codec=_kernel.Codec("float32", residuals.shape[1]),
        name="graph.hnsw",
    )


# Integers keep float32 distances exact, so that neighbours can be compared one by one; the scale
# takes the same points from crowded to far beyond what float32 can square.
@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    n, d, width = draw(st.integers(0, 40)), draw(st.integers(1, 40)), draw(st.integers(1, 5))
    scale = 2.0 ** draw(st.sampled_from([-20, 0, 20, 70]))
    small = st.integers(-4, 4).map(float)
    return {
        "embeddings": draw(arrays(np.float64, (n, d), elements=small)) * scale,
        "query": draw(arrays(np.float64, (d,), elements=small)) * scale,
        "residuals": draw(arrays(np.float32, (n, width), elements=st.floats(-1, 1, width=32))),
        "importance": draw(
            arrays(np.float32, (n,), elements=st.sampled_from([0.25, 1.0, 3.0, 1e6]))
        ),
        "k": draw(st.integers(1, 50)),
        "sigma": draw(st.sampled_from([1e-6, 0.1, 1.0, 37.0, 1e9])) * scale,
        "alpha": draw(st.sampled_from([0.0, 0.5, 10.0])),
    }


@pytest.mark.parametrize("importance", [0.0, -1.0, np.nan, np.inf])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_importances_that_nobody_may_give_correct_nothing(importance: float, alpha: float) -> None:
    """A release before this one kept 1e-300 as a float32 0: the scores were NaN."""
    residuals = np.full((3, 2), 0.5)
    segment = growing(np.eye(3, 4), residuals, np.full(3, importance))
    correction, _, distances, weights = _kernel.correct(
        [segment], np.zeros((1, 4), np.float32), 2, 3, 3, 1.0, alpha
    )
    np.testing.assert_array_equal(correction, [[0, 0]])
    np.testing.assert_array_equal(weights, [[0, 0, 0]])
    assert np.isfinite(distances).all()


def test_the_smallest_importance_still_counts() -> None:
    segment = growing(np.eye(2, 4), np.array([[0.5], [0.5]]), np.full(2, SMALLEST_WEIGHT))
    query = np.zeros((1, 4), np.float32)
    correction, _, _, weights = _kernel.correct([segment], query, 1, 2, 2, 1.0, 0.0)
    np.testing.assert_allclose(correction, [[0.5]])
    np.testing.assert_allclose(weights, [[0.5, 0.5]])


@settings(max_examples=200, deadline=None)
@given(cases())
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_correction_follows_the_formula(task: str, case: dict[str, Any]) -> None:
    residuals = case["residuals"].astype(np.float64)
    if task == "classification" and len(residuals):
        # Residuals of probabilities: in [-1, 1], and each row sums to 0.
        residuals = (residuals - residuals.mean(axis=1, keepdims=True)) / 2
    residuals = residuals.astype(np.float32).astype(np.float64)
    segment = growing(case["embeddings"], residuals, case["importance"])
    rule = {name: case[name] for name in ("k", "sigma", "alpha")}

    correction, sequences, distances, weights = _kernel.correct(
        [segment], case["query"][None].astype(np.float32), residuals.shape[1], ef=1, **rule
    )

    rows, expected_weights, expected = soft_knn(
        case["query"], case["embeddings"], residuals, case["importance"].astype(float), **rule
    )
    found = len(rows)
    assert list(sequences[0, :found] - 1) == list(rows)
    assert list(sequences[0, found:]) == [0] * (case["k"] - found)
    assert np.all(np.isinf(distances[0, found:]))
    assert np.all(weights[0, found:] == 0)
    np.testing.assert_allclose(weights[0, :found], expected_weights, rtol=0, atol=1e-6)
    np.testing.assert_allclose(correction[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dim", [1, 3, 7, 8, 15, 16, 17, 31, 32, 33, 48, 64, 65, 100, 128, 384])
def test_distances_are_exact_at_every_dimension(dim: int) -> None:
    rng = np.random.default_rng(dim)
    points = rng.normal(size=(50, dim)).astype(np.float32)
    query = rng.normal(size=(1, dim)).astype(np.float32)
    segment = growing(points, np.zeros((50, 1)), np.ones(50))
    _, sequences, distances, _ = _kernel.correct([segment], query, 1, 50, 1, 1.0, 0.0)
    expected = np.sqrt(((points.astype(float) - query) ** 2).sum(axis=1))
    np.testing.assert_allclose(distances[0], expected[sequences[0] - 1], rtol=1e-12)
    assert sorted(sequences[0]) == list(range(1, 51))


@settings(max_examples=50, deadline=None)
@given(st.permutations(range(30)), st.integers(1, 29))
def test_order_and_split_of_the_rows_do_not_matter(order: list[int], cut: int) -> None:
    rows, residuals, importance = DIGITS[:30], np.eye(10)[LABELS[:30]], np.linspace(1, 2, 30)
    query = DIGITS[100:103]
    whole = growing(rows, residuals, importance)
    shuffled = np.array(order)
    parts = [
        growing(rows[part], residuals[part], importance[part])
        for part in (shuffled[:cut], shuffled[cut:])
    ]
    one, *_ = _kernel.correct([whole], query, 10, 7, 1, 20.0, 0.0)
    two, *_ = _kernel.correct(parts, query, 10, 7, 1, 20.0, 0.0)
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_the_same_memory_with_k_1_gives_its_residual_exactly() -> None:
    residuals = np.eye(10, dtype=np.float32)[LABELS] - np.float32(0.1)
    segment = growing(DIGITS, residuals, np.ones(len(DIGITS)))
    correction, _, distances, weights = _kernel.correct([segment], DIGITS[:50], 10, 1, 1, 0.5, 0.0)
    assert np.array_equal(correction, residuals[:50])
    assert np.all(distances == 0)
    assert np.all(weights == 1)


def test_the_newer_of_two_equal_memories_comes_first() -> None:
    rows = np.repeat(DIGITS[:1], 3, axis=0)
    segment = growing(rows, np.zeros((3, 1)), np.ones(3))
    _, sequences, _, _ = _kernel.correct([segment], rows[:1], 1, 3, 1, 1.0, 0.0)
    assert list(sequences[0]) == [3, 2, 1]


def test_without_memories_the_correction_is_zero() -> None:
    empty = _kernel.GrowingSegment(4, 64, _kernel.Codec("float32", 10))
    for segments in ([], [empty]):
        correction, sequences, distances, weights = _kernel.correct(
            segments, DIGITS[:2], 10, 3, 10, 1.0, 0.0
        )
        assert not correction.any()
        assert not sequences.any()
        assert not weights.any()
        assert np.all(np.isinf(distances))


@pytest.mark.parametrize("ef", [10, 50, 100])
@pytest.mark.parametrize("k", [1, 10, 50])
def test_sealed_search_finds_what_hnswlib_finds(tmp_path: Path, k: int, ef: int) -> None:
    # Stretched, since the pixels are small integers: of rows that tie, either may be found.
    stretch = np.random.default_rng(0).uniform(0.5, 2, 64).astype(np.float32)
    rows, queries = DIGITS[:1500] * stretch, DIGITS[1500:] * stretch
    segment = sealed(tmp_path, rows, np.zeros((1500, 1), np.float32))
    index = hnswlib.Index("l2", 64)
    index.load_index(str(tmp_path / "graph.hnsw"))
    index.set_ef(ef)
    theirs, _ = index.knn_query(queries, k)
    _, ours, _, _ = _kernel.correct([segment], queries, 1, k, ef, 1.0, 0.0)
    for their_rows, our_sequences in zip(theirs, ours, strict=True):
        assert set(their_rows.tolist()) == set((our_sequences - 1).tolist())


def test_sealed_search_has_the_recall_of_its_ef(tmp_path: Path) -> None:
    rows, queries = DIGITS[:1500], DIGITS[1500:]
    segment = sealed(tmp_path, rows, np.zeros((1500, 1), np.float32))
    exact = growing(rows, np.zeros((1500, 1)), np.ones(1500))
    _, found, far, _ = _kernel.correct([segment], queries, 1, 50, 100, 1.0, 0.0)
    _, _, true_far, _ = _kernel.correct([exact], queries, 1, 50, 1, 1.0, 0.0)
    recall = np.mean(far <= true_far[:, -1:] + 1e-9)
    assert recall >= 0.98
    assert found.min() >= 1


def test_forgotten_rows_are_passed_over_and_still_lead_to_the_others(tmp_path: Path) -> None:
    rows = DIGITS[:1000]
    residuals = np.zeros((1000, 1), np.float32)
    graph, scan = sealed(tmp_path, rows, residuals), growing(rows, residuals, np.ones(1000))
    query = rows[:1]
    _, nearest, _, _ = _kernel.correct([scan], query, 1, 300, 1, 1.0, 0.0)
    for sequence in nearest[0]:
        for segment in (graph, scan):
            assert segment.forget(segment.find(int(sequence)))
            assert not segment.forget(segment.find(int(sequence)))
    _, from_graph, _, _ = _kernel.correct([graph], query, 1, 20, 200, 1.0, 0.0)
    _, from_scan, _, _ = _kernel.correct([scan], query, 1, 20, 1, 1.0, 0.0)
    assert not set(nearest[0]) & (set(from_graph[0]) | set(from_scan[0]))
    assert len(set(from_graph[0]) & set(from_scan[0])) >= 19
    assert graph.dead_rows == scan.dead_rows == 300


def test_a_search_where_every_row_is_forgotten_finds_none(tmp_path: Path) -> None:
    segment = sealed(tmp_path, DIGITS[:50], np.zeros((50, 1), np.float32))
    for row in range(50):
        segment.forget(row)
    correction, sequences, _, _ = _kernel.correct([segment], DIGITS[:1], 1, 5, 10, 1.0, 0.0)
    assert not sequences.any()
    assert not correction.any()


def test_growing_segment_takes_what_fits_and_copies_what_came_after() -> None:
    segment = _kernel.GrowingSegment(10, 64, _kernel.Codec("float32", 10))
    rows = (DIGITS[:16], bytes_of(np.eye(10)[LABELS[:16]]), np.ones(16, np.float32))
    sequences = np.arange(5, 21)
    assert segment.append(*rows, sequences) == 10
    assert segment.append(*rows, sequences, 10) == 0
    segment.forget(9)
    copy = segment.copy_after(8)
    assert [copy.sequence(row) for row in range(copy.rows)] == [9, 10, 11, 12, 13]
    assert segment.find(14) == 9
    assert segment.find(15) == -1
    with pytest.raises(IndexError):
        segment.sequence(10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b[:50], "shorter than its header"),
        (lambda b: b[:200], "shorter than its header says"),
        (lambda b: b[:-3], "upper"),
        (lambda b: np.concatenate([b, b[:8]]), "longer"),
        (lambda b: _patched(b, 52, np.uint32(10_000)), "entry point"),
        (lambda b: _patched(b, 40, np.uint64(7)), "not that of an hnswlib graph"),
        (lambda b: _patched(b, 96, np.uint16(60_000)), "too long"),
        (lambda b: _patched(b, 100, np.uint32(10_000)), "link is out of range"),
        (lambda b: _patched(b, 96 + 4 + 128 + 256, np.uint64(10_000)), "label is out of range"),
    ],
)
def test_a_damaged_graph_is_refused_by_name(tmp_path: Path, change: Any, message: str) -> None:
    sealed(tmp_path, DIGITS[:500], np.zeros((500, 1), np.float32))
    damaged = change(np.fromfile(tmp_path / "graph.hnsw", np.uint8))
    with pytest.raises(_kernel.CorruptGraph, match=f"here/graph.hnsw: .*{message}"):
        _kernel.correct(
            [
                _kernel.SealedSegment(
                    graph=damaged,
                    codes=bytes_of(np.zeros((500, 1))),
                    weights=np.ones(500, np.float32),
                    sequences=np.arange(1, 501),
                    dim=64,
                    codec=_kernel.Codec("float32", 1),
                    name="here/graph.hnsw",
                )
            ],
            DIGITS[:500],
            1,
            500,
            500,
            1.0,
            0.0,
        )


def _patched(content: NDArray[np.uint8], offset: int, value: np.generic) -> NDArray[np.uint8]:
    patched = content.copy()
    patched[offset : offset + value.itemsize] = np.frombuffer(value.tobytes(), np.uint8)
    return patched


def test_arrays_of_the_wrong_shape_are_refused(tmp_path: Path) -> None:
    segment = _kernel.GrowingSegment(4, 64, _kernel.Codec("float32", 10))
    with pytest.raises(ValueError, match="shape of the segment"):
        segment.append(
            DIGITS[:2], bytes_of(np.zeros((3, 10))), np.ones(2, np.float32), np.arange(2)
        )
    with pytest.raises(ValueError, match="another dimension or width"):
        _kernel.correct([segment], DIGITS[:1, :10].copy(), 10, 1, 1, 1.0, 0.0)
    with pytest.raises(ValueError, match="must be above 0"):
        _kernel.correct([segment], DIGITS[:1], 10, 0, 1, 1.0, 0.0)
    with pytest.raises(_kernel.CorruptGraph, match="another number of rows"):
        sealed(tmp_path, DIGITS[:5], np.zeros((4, 1), np.float32))
