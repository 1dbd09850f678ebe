"""The search beside hnswlib, faiss and usearch at equal recall, in 60,000 and 1,020,000 memories.

    pip install '.[bench]'
    python -m benchmarks.speed.neighbours            # --rows 60000 for the small set only

The rows are the principal components of Fashion-MNIST's training images, 64 of the images
themselves, or 128 of them and of shifted copies (`benchmarks.speed.mapped`); the queries those of
the test images. All graphs have 16 links a row and a build ef of 200, and are kept in
`benchmarks/out/`; hnswlib searches our own file. Each library gets the smallest ef at which it
finds at least what the kernel finds at its own. CPU time of this process on one thread, the
median of alternating rounds, queries one by one and in batches. The kernel's time is that of the
whole correction, weights and residuals included.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import faiss
import hnswlib
import numpy as np
import usearch.index
from numpy.typing import NDArray
from resmem_service.memory.rows import MemoryShape, SegmentRows
from resmem_service.memory.search import _kernel
from resmem_service.memory.segments.build import build_segment
from resmem_service.memory.segments.graph_settings import GraphSettings
from resmem_service.memory.segments.sealed_segment import SealedSegment

from benchmarks import fashion_mnist
from benchmarks.speed.mapped import DIM, WIDTH, axes_of, ensure_segment, million_rows

_OUT: Final = Path("benchmarks/out")
_K: Final = 50
_EF: Final = {60_000: 64, 1_020_000: 128}
_BATCHES: Final = (1, 16)
_JUDGED: Final = 1000
_GRAPH: Final = GraphSettings(m=16, ef_construction=200)

Floats = NDArray[np.float32]
Search = Callable[[Floats], NDArray[np.int64]]
"""Queries `[n, d]` -> rows found `[n, k]`."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is searched for in what."""

    rows: SegmentRows
    queries: Floats
    memories: Path
    """The segment."""
    folder: Path
    """Indexes of the other libraries."""

    @classmethod
    def read(cls, count: int, data: Path) -> "Case":
        """The set of `count` rows, and the principal components of the test images."""
        rows, memories = million_rows(data), _OUT / "million" / "memories"
        dim, folder = DIM, _OUT / "neighbours" / str(count)
        if count < len(rows):
            memories, dim = folder / "memories", 64
            first = _unshifted(rows, data)
            chosen = slice(first, first + count)
            rows = SegmentRows(
                np.ascontiguousarray(rows.embeddings[chosen, :dim]),
                rows.residuals[chosen],
                rows.targets[chosen],
                np.arange(1, count + 1),
                rows.weights[chosen],
            )
        else:
            ensure_segment(memories, data)
        mean, axes = axes_of(fashion_mnist.load("train", data).images)
        images = fashion_mnist.load("t10k", data).images.reshape(10_000, -1)
        queries = (images.astype(np.float32) / 255 - mean) @ axes[:, :dim]
        return cls(rows, queries.astype(np.float32), memories, folder)


def _unshifted(rows: SegmentRows, data: Path) -> int:
    images = fashion_mnist.load("train", data).images
    mean, axes = axes_of(images)
    first = (images[0].reshape(1, -1).astype(np.float32) / 255 - mean) @ axes
    starts = np.arange(0, len(rows), len(images))
    return int(starts[np.abs(rows.embeddings[starts] - first).sum(axis=1).argmin()])


def kernel(case: Case) -> Callable[[int], Search]:
    """The service's own search, mapped, with the correction."""
    shape = MemoryShape(case.queries.shape[1], WIDTH, "classification")
    if not case.memories.is_dir():
        case.memories.parent.mkdir(parents=True, exist_ok=True)
        build_segment(case.memories, case.rows, _GRAPH, shape)
    segment = SealedSegment.open(case.memories, shape)
    segment.verify()  # as the service reads it through before it serves

    def at(ef: int) -> Search:
        return lambda queries: (
            _kernel.correct([segment.native], queries, WIDTH, _K, ef, 1.0, 0.0)[1] - 1
        )

    return at


def hnswlib_search(case: Case) -> Callable[[int], Search]:
    """`knn_query` on the same graph, loaded."""
    index = hnswlib.Index("l2", case.queries.shape[1])
    index.load_index(str(case.memories / "graph.hnsw"))
    index.set_num_threads(1)

    def at(ef: int) -> Search:
        def search(queries: Floats) -> NDArray[np.int64]:
            index.set_ef(ef)
            found: NDArray[np.int64] = index.knn_query(queries, _K)[0].astype(np.int64)
            return found

        return search

    return at


def faiss_search(case: Case) -> Callable[[int], Search]:
    """`IndexHNSWFlat`, loaded."""
    path = case.folder / "faiss.index"
    if not path.exists():
        index = faiss.IndexHNSWFlat(case.queries.shape[1], _GRAPH.m)
        index.hnsw.efConstruction = _GRAPH.ef_construction
        index.add(case.rows.embeddings)
        faiss.write_index(index, str(path))
    faiss.omp_set_num_threads(1)
    index = faiss.read_index(str(path))

    def at(ef: int) -> Search:
        def search(queries: Floats) -> NDArray[np.int64]:
            index.hnsw.efSearch = ef
            found: NDArray[np.int64] = index.search(queries, _K)[1]
            return found

        return search

    return at


def usearch_search(case: Case) -> Callable[[int], Search]:
    """`Index` of float32, mapped."""
    path = case.folder / "usearch.index"
    if not path.exists():
        index = usearch.index.Index(
            ndim=case.queries.shape[1],
            metric="l2sq",
            dtype="f32",
            connectivity=_GRAPH.m,
            expansion_add=_GRAPH.ef_construction,
        )
        index.add(np.arange(len(case.rows)), case.rows.embeddings)
        index.save(str(path))
    index = usearch.index.Index.restore(str(path), view=True)

    def at(ef: int) -> Search:
        def search(queries: Floats) -> NDArray[np.int64]:
            index.expansion_search = ef
            keys = index.search(queries, _K, threads=1).keys
            return np.asarray(keys, np.int64).reshape(len(queries), -1)

        return search

    return at


LIBRARIES: Final = {
    "kernel": kernel,
    "hnswlib": hnswlib_search,
    "faiss HNSWFlat": faiss_search,
    "usearch": usearch_search,
}


def true_neighbours(case: Case) -> NDArray[np.int64]:
    """The nearest rows `[judged, k]`, by brute force."""
    vectors = case.rows.embeddings
    norms = (vectors**2).sum(axis=1)
    parts = [
        np.argpartition(norms - 2 * part @ vectors.T, _K, axis=1)[:, :_K]
        for part in np.split(case.queries[:_JUDGED], _JUDGED // 50)
    ]
    return np.concatenate(parts)


def recall(true: NDArray[np.int64], found: NDArray[np.int64]) -> float:
    """The mean share of the true neighbours that is found."""
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(true, found, strict=True)]))


def smallest_breadth(
    at: Callable[[int], Search], case: Case, true: NDArray[np.int64], wanted: float
) -> tuple[int, float]:
    """The smallest ef, in steps of 2, that has the wanted recall, and what it has."""
    for ef in range(_K, 1000, 2):
        reached = recall(true, at(ef)(case.queries[:_JUDGED]))
        if reached >= wanted:
            return ef, reached
    raise RuntimeError("no ef reaches the recall")


def cpu_us(search: Search, queries: Floats, batch: int) -> float:
    """Microseconds of CPU time per query, in batches."""
    started = time.process_time()
    for start in range(0, len(queries), batch):
        search(queries[start : start + batch])
    return (time.process_time() - started) / len(queries) * 1e6


def compare(case: Case, queries: int, rounds: int) -> dict[str, Any]:
    """Measures all libraries on one set and prints a table."""
    true = true_neighbours(case)
    count, dim = case.rows.embeddings.shape
    searches, results = {}, {}
    ef, wanted = _EF[count], 0.0
    for name, library in LIBRARIES.items():
        at = library(case)
        if name == "kernel":
            reached = wanted = recall(true, at(ef)(case.queries[:_JUDGED]))
        else:
            ef, reached = smallest_breadth(at, case, true, wanted)
        searches[name] = at(ef)
        results[name] = {"ef": float(ef), "recall": reached}
    print(f"\n{count:,} rows, d = {dim}, k = {_K}")
    print(f"{'CPU us per query':18}{'ef':>6}{'recall':>9}", end="")
    print("".join(f"{f'batch {batch}':>12}{'ratio':>8}" for batch in _BATCHES))
    asked = case.queries[:queries]
    for batch in _BATCHES:
        times = [
            [cpu_us(search, asked, batch) for search in searches.values()] for _ in range(rounds)
        ]
        for name, value in zip(searches, np.median(times, axis=0), strict=True):
            results[name][f"us_{batch}"] = float(value)
    for name, result in results.items():
        print(f"{name:18}{result['ef']:>6.0f}{result['recall']:>9.4f}", end="")
        for batch in _BATCHES:
            ratio = result[f"us_{batch}"] / results["hnswlib"][f"us_{batch}"]
            print(f"{result[f'us_{batch}']:>12.1f}{ratio:>8.2f}", end="")
        print()
    return results


def main() -> None:
    """Builds what is missing, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the four Fashion-MNIST files")
    parser.add_argument("--rows", type=int, choices=_EF, action="append")
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    data = fashion_mnist.data_folder(arguments.data)
    results = {}
    for count in arguments.rows or _EF:
        case = Case.read(count, data)
        case.folder.mkdir(parents=True, exist_ok=True)
        results[str(count)] = compare(case, arguments.queries, arguments.rounds)
    (_OUT / "neighbours.json").write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
