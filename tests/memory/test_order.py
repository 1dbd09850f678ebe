from pathlib import Path

import hnswlib
import numpy as np
import pytest
from numpy.typing import NDArray
from resmem_service.memory.search import _kernel
from resmem_service.memory.segments.graph_file import graph_records

from tests.memory.examples import PIXELS


def saved(folder: Path, rows: NDArray[np.float32]) -> Path:
    index = hnswlib.Index("l2", rows.shape[1])
    index.init_index(len(rows), M=8, ef_construction=100)
    # Not in an order of locality to begin with.
    index.add_items(rows, np.random.default_rng(0).permutation(len(rows)), num_threads=1)
    index.save_index(str(folder / "graph.hnsw"))
    return folder / "graph.hnsw"


def loaded(path: Path) -> hnswlib.Index:
    index = hnswlib.Index("l2", PIXELS.shape[1])
    index.load_index(str(path), max_elements=len(PIXELS))
    index.set_ef(100)
    return index


def near_links(graph: NDArray[np.uint8]) -> float:
    """The share of links that lead to one of the next or the last five elements."""
    records = graph_records(graph, PIXELS.shape[1])
    here = np.arange(len(records))[:, None]
    known = np.arange(records["links"].shape[1]) < records["count"][:, None]
    return float((np.abs(records["links"].astype(float) - here)[known] <= 5).mean())


def test_hnswlib_finds_the_same_in_it_and_carries_it_on(tmp_path: Path) -> None:
    path = saved(tmp_path, PIXELS[:1500])
    before = loaded(path)
    _kernel.reordered(np.fromfile(path, np.uint8), 64).tofile(path)
    after = loaded(path)
    for one, two in zip(
        before.knn_query(PIXELS[1500:], 10), after.knn_query(PIXELS[1500:], 10), strict=True
    ):
        # Of rows that tie either may be found.
        assert (one == two).mean() > 0.99
    after.add_items(PIXELS[1500:], np.arange(1500, len(PIXELS)), num_threads=1)
    found, far = after.knn_query(PIXELS[1500:], 1)
    assert np.mean(found[:, 0] == np.arange(1500, len(PIXELS))) > 0.99
    assert not far.any()


def test_vectors_keep_their_labels(tmp_path: Path) -> None:
    path = saved(tmp_path, PIXELS)
    graph = np.fromfile(path, np.uint8)
    one, two = (graph_records(g, 64) for g in (graph, _kernel.reordered(graph, 64)))
    for field in ("vector", "count"):
        assert np.array_equal(
            one[field][np.argsort(one["label"])], two[field][np.argsort(two["label"])]
        )


def test_elements_that_are_linked_lie_nearer_to_each_other(tmp_path: Path) -> None:
    graph = np.fromfile(saved(tmp_path, PIXELS), np.uint8)
    assert near_links(_kernel.reordered(graph, 64)) > 10 * near_links(graph)


@pytest.mark.parametrize("rows", [1, 2, 5, 6, 7])
def test_small_graphs(tmp_path: Path, rows: int) -> None:
    path = saved(tmp_path, PIXELS[:rows])
    _kernel.reordered(np.fromfile(path, np.uint8), 64).tofile(path)
    _, far = loaded(path).knn_query(PIXELS[:rows], 1)
    assert not far.any()


def test_a_damaged_graph_is_refused(tmp_path: Path) -> None:
    graph = np.fromfile(saved(tmp_path, PIXELS[:100]), np.uint8)
    graph[100:104] = 255
    with pytest.raises(_kernel.CorruptGraph, match="a link is out of range"):
        _kernel.reordered(graph, 64)


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        # Before, read and written beyond the file.
        (0, np.uint16(60_000), "too long"),
        # Before, an IndexError that named nothing.
        (4, np.uint32(10_000), "link is out of range"),
    ],
)
def test_a_damaged_list_on_an_upper_level_is_refused(
    tmp_path: Path, at: int, value: np.generic, message: str
) -> None:
    graph = np.fromfile(saved(tmp_path, PIXELS[:500]), np.uint8)
    count, record = (int(graph[place : place + 8].view(np.uint64)[0]) for place in (16, 24))
    place = 96 + count * record
    while not graph[place : place + 4].any():
        place += 4
    place += 4 + at
    graph[place : place + value.itemsize] = np.frombuffer(value.tobytes(), np.uint8)
    with pytest.raises(_kernel.CorruptGraph, match=message):
        _kernel.reordered(graph, 64)
