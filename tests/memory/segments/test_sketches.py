import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from resmem_service.errors import CorruptFile
from resmem_service.memory.rows import MemoryShape, SegmentRows
from resmem_service.memory.search import _kernel
from resmem_service.memory.segments.build import build_segment
from resmem_service.memory.segments.graph_file import graph_records
from resmem_service.memory.segments.graph_settings import GraphSettings
from resmem_service.memory.segments.sealed_segment import SealedSegment
from resmem_service.memory.segments.sketches import SKETCH_ARRAYS, sketch_bytes, write_sketches

from tests.memory.examples import LABELS, PIXELS, RESIDUALS, SHAPE

STRETCH = np.random.default_rng(0).uniform(0.5, 2, 64).astype(np.float32)
ROWS, QUERIES = PIXELS[:1500] * STRETCH, PIXELS[1500:] * STRETCH
SHIPPED = Path("model_store/fashion/1/memories")


def built(folder: Path, embeddings: NDArray[np.float32], m: int = 16) -> Path:
    n = len(embeddings)
    rows = SegmentRows(
        embeddings, RESIDUALS[:n], LABELS[:n], np.arange(1, n + 1), np.ones(n, np.float32)
    )
    build_segment(folder, rows, GraphSettings(m=m, threads=1), SHAPE)
    return folder


def without_sketches(folder: Path) -> Path:
    """As a segment was before there were sketches."""
    content = json.loads((folder / "segment.json").read_text())
    for name in SKETCH_ARRAYS:
        del content["files"][f"{name}.npy"]
        (folder / f"{name}.npy").unlink()
    (folder / "segment.json").write_text(json.dumps(content))
    return folder


def recall(segment: SealedSegment, k: int, ef: int) -> float:
    squared = ((QUERIES[:, None].astype(float) - ROWS) ** 2).sum(axis=2)
    farthest = np.sqrt(np.partition(squared, k - 1, axis=1)[:, k - 1])
    _, _, found, _ = _kernel.correct([segment.native], QUERIES, 10, k, ef, 1.0, 0.0)
    return float((found <= farthest[:, None] + 1e-6).mean())


def arrays_of(folder: Path) -> list[NDArray[Any]]:
    return [np.load(folder / f"{name}.npy") for name in SKETCH_ARRAYS]


def test_a_code_stands_for_a_number_within_half_a_step(tmp_path: Path) -> None:
    folder = built(tmp_path / "s", ROWS)
    links, sketches, grid = arrays_of(folder)
    records = graph_records(np.fromfile(folder / "graph.hnsw", np.uint8), 64)
    offset, step = grid.astype(float)
    assert np.all(np.abs(offset + step * sketches - records["vector"]) <= step / 2 + 1e-4)
    assert sketches.nbytes + links.nbytes == len(ROWS) * sketch_bytes(64, 16)


def test_a_short_list_of_links_is_filled_up_with_the_element_itself(tmp_path: Path) -> None:
    folder = built(tmp_path / "s", ROWS)
    links = np.load(folder / "links.npy")
    records = graph_records(np.fromfile(folder / "graph.hnsw", np.uint8), 64)
    assert records["count"].min() < 32
    for element, (record, padded) in enumerate(zip(records, links, strict=True)):
        assert list(padded[: record["count"]]) == list(record["links"][: record["count"]])
        assert set(padded[record["count"] :]) <= {element}


@pytest.mark.parametrize(("dim", "stride"), [(8, 16), (16, 16), (17, 32), (33, 64), (65, 128)])
def test_a_row_of_sketches_begins_on_a_line_of_the_cache(
    tmp_path: Path, dim: int, stride: int
) -> None:
    points = np.random.default_rng(dim).normal(size=(300, dim)).astype(np.float32)
    rows = SegmentRows(
        points, RESIDUALS[:300], LABELS[:300], np.arange(1, 301), np.ones(300, np.float32)
    )
    shape = MemoryShape(dim, 10, "classification")
    build_segment(tmp_path / "s", rows, GraphSettings(threads=1), shape)
    assert np.load(tmp_path / "s/sketches.npy").shape == (300, stride)
    segment = SealedSegment.open(tmp_path / "s", shape)
    _, found, far, _ = _kernel.correct([segment.native], points, 10, 1, 100, 1.0, 0.0)
    assert np.mean(found[:, 0] == np.arange(1, 301)) > 0.99
    assert np.median(far) == 0


@pytest.mark.parametrize(("k", "ef"), [(1, 10), (10, 10), (50, 50), (53, 53), (10, 40), (50, 100)])
def test_sketches_cost_no_recall_at_the_same_breadth(tmp_path: Path, k: int, ef: int) -> None:
    folder = built(tmp_path / "s", ROWS, m=4)
    sketched = recall(SealedSegment.open(folder, SHAPE), k, ef)
    exact = recall(SealedSegment.open(without_sketches(folder), SHAPE), k, ef)
    assert exact < 1 or ef == 100
    assert sketched >= exact - 1e-3


def test_sketches_of_the_shipped_memories_cost_no_recall(tmp_path: Path) -> None:
    """20,000 whitened embeddings of a network, asked for points between two of them."""
    graph = np.fromfile(SHIPPED / "graph.hnsw", np.uint8)
    write_sketches(tmp_path, graph, 32)
    vectors = graph_records(graph, 32)["vector"]
    queries = np.ascontiguousarray((vectors[:300] + vectors[300:600]) / 2)
    squared = ((queries[:, None] - vectors[None]) ** 2).sum(axis=2)
    farthest = np.sqrt(np.partition(squared, 52, axis=1)[:, 52])[:, None] * (1 + 1e-5)
    recalls = []
    for sketches in (None, _kernel.Sketches(*arrays_of(tmp_path))):
        segment = _kernel.SealedSegment(
            graph=graph,
            codes=np.zeros((len(vectors), 4), np.uint8),
            weights=np.ones(len(vectors), np.float32),
            sequences=np.arange(len(vectors)),
            dim=32,
            codec=_kernel.Codec("float32", 1),
            name="graph.hnsw",
            sketches=sketches,
        )
        _, _, found, _ = _kernel.correct([segment], queries, 1, 53, 53, 1.0, 0.0)
        recalls.append((found <= farthest).mean())
    assert recalls[0] < 1
    assert recalls[1] >= recalls[0] - 1e-3


def test_distances_are_those_of_the_vectors(tmp_path: Path) -> None:
    segment = SealedSegment.open(built(tmp_path / "s", ROWS), SHAPE)
    _, rows, distances, _ = _kernel.correct([segment.native], QUERIES, 10, 5, 50, 1.0, 0.0)
    true = np.sqrt(((QUERIES[:, None].astype(float) - ROWS[rows - 1]) ** 2).sum(axis=2))
    np.testing.assert_allclose(distances, true, rtol=1e-12)


def test_what_one_byte_cannot_tell_apart_has_no_sketches(tmp_path: Path) -> None:
    """A row far outside makes the steps so wide that all the others look alike."""
    rows = ROWS.copy()
    rows[7] = 1e6
    folder = built(tmp_path / "s", rows)
    assert not any((folder / f"{name}.npy").exists() for name in SKETCH_ARRAYS)
    segment = SealedSegment.open(folder, SHAPE)
    segment.verify()
    assert recall(segment, 10, 100) > 0.98


def test_a_segment_from_before_there_were_sketches_is_searched(tmp_path: Path) -> None:
    segment = SealedSegment.open(without_sketches(built(tmp_path / "s", ROWS)), SHAPE)
    segment.verify()
    assert recall(segment, 10, 100) > 0.98


@pytest.mark.parametrize("name", SKETCH_ARRAYS)
def test_some_of_the_sketches_are_none(tmp_path: Path, name: str) -> None:
    folder = built(tmp_path / "s", ROWS[:100])
    content = json.loads((folder / "segment.json").read_text())
    del content["files"][f"{name}.npy"]
    (folder / "segment.json").write_text(json.dumps(content))
    with pytest.raises(CorruptFile, match=r"segment\.json names other files"):
        SealedSegment.open(folder, SHAPE)


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("links", (100, 32), np.int32),
        ("links", (99, 32), np.uint32),
        ("links", (100, 31), np.uint32),
        ("links", (3200,), np.uint32),
        ("sketches", (100, 64), np.uint8),
        ("sketches", (100, 48), np.int8),
        ("sketches", (100, 72), np.int8),
        ("grid", (2, 63), np.float32),
        ("grid", (1, 64), np.float32),
    ],
)
def test_sketches_of_another_shape_are_refused(
    tmp_path: Path, name: str, shape: tuple[int, ...], dtype: type[np.generic]
) -> None:
    folder = built(tmp_path / "s", ROWS[:100])
    np.save(folder / f"{name}.npy", np.zeros(shape, dtype))
    content = json.loads((folder / "segment.json").read_text())
    content["files"][f"{name}.npy"]["bytes"] = (folder / f"{name}.npy").stat().st_size
    (folder / "segment.json").write_text(json.dumps(content))
    with pytest.raises(CorruptFile, match=f"{name}.npy|sketches"):
        SealedSegment.open(folder, SHAPE)


def test_a_link_out_of_range_is_refused_by_name(tmp_path: Path) -> None:
    folder = built(tmp_path / "s", ROWS[:100])
    links = np.load(folder / "links.npy")
    links[:] = 100
    np.save(folder / "links.npy", links)
    segment = SealedSegment.open(folder, SHAPE)
    with pytest.raises(_kernel.CorruptGraph, match=r"graph\.hnsw: a link is out of range"):
        _kernel.correct([segment.native], QUERIES[:1], 10, 5, 50, 1.0, 0.0)


def test_forgotten_rows_are_passed_over_and_still_lead_to_the_others(tmp_path: Path) -> None:
    segment = SealedSegment.open(built(tmp_path / "s", ROWS), SHAPE)
    order = np.argsort(((ROWS - ROWS[0]) ** 2).sum(axis=1))
    for row in order[:300]:
        assert segment.forget(int(row) + 1)
    _, found, _, _ = _kernel.correct([segment.native], ROWS[:1], 10, 20, 200, 1.0, 0.0)
    assert len({*found[0]} & {*(order[300:320] + 1)}) >= 19
    for row in order[300:]:
        segment.forget(int(row) + 1)
    correction, found, _, _ = _kernel.correct([segment.native], ROWS[:1], 10, 20, 200, 1.0, 0.0)
    assert not found.any()
    assert not correction.any()


@pytest.mark.parametrize("rows", [1, 2, 3, 64, 65])
def test_a_batch_is_answered_like_its_queries_one_by_one(tmp_path: Path, rows: int) -> None:
    """Searches that take turns must not see each other."""
    folder = built(tmp_path / "s", ROWS)
    segments = [SealedSegment.open(folder, SHAPE), SealedSegment.open(folder, SHAPE)]
    segments.append(SealedSegment.open(without_sketches(folder), SHAPE))
    for chosen in (segments[:1], segments[2:], segments[1:]):
        native = [segment.native for segment in chosen]
        batch: list[NDArray[Any]] = [*_kernel.correct(native, QUERIES[:rows], 10, 7, 30, 1.0, 0.0)]
        for row in range(rows):
            alone: list[NDArray[Any]] = [
                *_kernel.correct(native, QUERIES[row : row + 1], 10, 7, 30, 1.0, 0.0)
            ]
            for one, many in zip(alone, batch, strict=True):
                assert np.array_equal(one[0], many[row])
