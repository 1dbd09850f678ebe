"""The search kernel beside hnswlib, on the 60,000 Fashion-MNIST memories of a fitted bundle.

    python -m benchmarks.quality.fashion_mnist   # once: trains the base and fits the bundle
    python -m benchmarks.speed.search            # without it: the 20,000 of the shipped bundle

Both search the same graph file at the same ef for the embeddings of the 10,000 test images:
hnswlib's `knn_query` on one thread with the soft-kNN average in numpy, and the kernel's one call
that does all of it. CPU time of this process, the median of alternating rounds.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import hnswlib
import numpy as np
from numpy.typing import NDArray
from resmem_service.bundle.store import Bundle, ModelStore
from resmem_service.inference.base_model import BaseModel
from resmem_service.inference.rows import Rows
from resmem_service.memory.search import _kernel
from resmem_service.memory.search.soft_knn import SoftKnn
from resmem_service.memory.segments.sealed_segment import SealedSegment

from benchmarks import fashion_mnist

_OUT = Path("benchmarks/out")
_BATCHES = (1, 16, 256)
_EXACT_QUERIES = 2000
_MODEL_ROWS = 500

Floats = NDArray[np.float32]
Search = Callable[[Floats], tuple[NDArray[np.int64], NDArray[np.floating]]]
"""Queries `[n, d]` -> rows found `[n, k]`, correction `[n, L]`."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is searched for in what."""

    segment: SealedSegment
    index: hnswlib.Index
    residuals: Floats
    queries: Floats
    rule: SoftKnn

    @classmethod
    def read(cls, bundle: Bundle, images: NDArray[np.uint8]) -> "Case":
        """The bundle's memories, opened both ways, and the embeddings of the images."""
        manifest, folder = bundle.manifest, bundle.memories_path
        model = BaseModel(bundle.model_path, inputs=manifest.inputs, provider="cpu")
        name = manifest.inputs[0].name
        parts = [images[i : i + _MODEL_ROWS] for i in range(0, len(images), _MODEL_ROWS)]
        index = hnswlib.Index("l2", manifest.embedding.dim)
        index.load_index(str(folder / "graph.hnsw"))
        rule, shape = manifest.parameters.rule(), manifest.memory_shape()
        index.set_ef(max(rule.ef, rule.k))
        index.set_num_threads(1)
        return cls(
            SealedSegment.open(folder, shape),
            index,
            shape.codec.decode(np.load(folder / "residuals.npy"), shape.width),
            np.concatenate([model.run(Rows({name: part})).embeddings for part in parts]),
            rule,
        )

    def kernel(self, queries: Floats) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
        """One call."""
        rule, width = self.rule, self.residuals.shape[1]
        correction, sequences, _, _ = _kernel.correct(
            [self.segment.native], queries, width, rule.k, rule.ef, rule.sigma, rule.alpha
        )
        return -1 - sequences, correction

    def hnswlib(self, queries: Floats) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
        """`knn_query`, then the formula in numpy."""
        rule = self.rule
        rows, squared = self.index.knn_query(queries, rule.k)
        rows = rows.astype(np.int64)
        distances = np.sqrt(squared)
        weights = np.exp((distances[:, :1] - distances) / rule.sigma)
        total = weights.sum(axis=1, keepdims=True)
        if rule.alpha > 0:
            total += rule.alpha * np.exp(distances[:, :1] / rule.sigma)
        return rows, np.einsum("nk,nkl->nl", weights / total, self.residuals[rows])

    def exact(self, count: int) -> NDArray[np.int64]:
        """The true k nearest rows of the first `count` queries, by brute force."""
        vectors = np.array(self.index.get_items(np.arange(len(self.residuals))))
        squared = (vectors**2).sum(axis=1) - 2 * self.queries[:count] @ vectors.T
        return np.argpartition(squared, self.rule.k, axis=1)[:, : self.rule.k]


def cpu_us(search: Search, queries: Floats, batch: int) -> float:
    """Microseconds of CPU time per query, in batches."""
    started = time.process_time()
    for start in range(0, len(queries), batch):
        search(queries[start : start + batch])
    return (time.process_time() - started) / len(queries) * 1e6


def overlap(one: NDArray[np.int64], two: NDArray[np.int64]) -> float:
    """The mean share of a row of `one` that is in the same row of `two`."""
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(one, two, strict=True)]))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the four Fashion-MNIST files")
    parser.add_argument("--store", type=Path, help="folder of the bundle")
    parser.add_argument("--queries", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    fitted = _OUT / "fashion_mnist" / "store"
    store = arguments.store or (fitted if fitted.is_dir() else Path("model_store"))
    images = fashion_mnist.load("t10k", fashion_mnist.data_folder(arguments.data)).images
    case = Case.read(ModelStore(store).resolve(None), images)

    ours, corrections = case.kernel(case.queries)
    theirs, expected = case.hnswlib(case.queries)
    recall = overlap(case.exact(_EXACT_QUERIES), ours[:_EXACT_QUERIES])
    same = overlap(theirs, ours)
    apart = float(np.abs(corrections - expected).max())
    rule, (rows, width) = case.rule, case.residuals.shape
    print(f"{rows} rows, d = {case.queries.shape[1]}, L = {width}, k = {rule.k}, ef = {rule.ef}")
    print(f"recall@{rule.k} {recall:.4f}; neighbours shared with hnswlib {same:.6f}")
    print(f"largest difference of a correction {apart:.1e}; {_kernel.instruction_set}\n")

    print(f"{'CPU us per query':18}{'hnswlib + numpy':>18}{'kernel':>10}{'ratio':>8}")
    results = {"recall": recall, "shared": same}
    queries = case.queries[: arguments.queries]
    for batch in _BATCHES:
        rounds = [
            (cpu_us(case.hnswlib, queries, batch), cpu_us(case.kernel, queries, batch))
            for _ in range(arguments.rounds)
        ]
        theirs_us, ours_us = (float(value) for value in np.median(rounds, axis=0))
        ratio = ours_us / theirs_us
        print(f"{f'batches of {batch}':18}{theirs_us:>18.1f}{ours_us:>10.1f}{ratio:>8.2f}")
        results[f"ratio_{batch}"] = ratio
    _OUT.mkdir(parents=True, exist_ok=True)
    (_OUT / "search.json").write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
