"""What opening a million memories costs: a mapped segment beside `hnswlib.Index.load_index`.

    python -m benchmarks.speed.mapped

The rows are Fashion-MNIST's 60,000 training images and shifted copies of them, 1,020,000 in all,
reduced to 128 principal components. The segment is built once (minutes) and kept in
`benchmarks/out/`. Each way of opening runs in a process of its own, with the files in the page
cache; the first search after it is timed as well, since a mapping reads nothing before.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import hnswlib
import numpy as np
from numpy.typing import NDArray
from resmem_service.memory.rows import MemoryShape, SegmentRows
from resmem_service.memory.search import _kernel
from resmem_service.memory.segments.build import build_segment
from resmem_service.memory.segments.graph_settings import GraphSettings
from resmem_service.memory.segments.sealed_segment import SealedSegment

from benchmarks import fashion_mnist

DIM, WIDTH = 128, 10
SHAPE = MemoryShape(DIM, WIDTH, "classification")
_SHIFTS = [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3) if abs(dy) + abs(dx) <= 3][:17]
_K, _EF = 50, 128


def shifted_images(images: NDArray[np.uint8]) -> Iterator[NDArray[np.float32]]:
    """The images `[n, 784]` in [0, 1], once for each shift."""
    for shift in _SHIFTS:
        moved = np.roll(images, shift, axis=(1, 2)).reshape(len(images), -1)
        yield moved.astype(np.float32) / np.float32(255)


def axes_of(images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean `[784]` and principal axes `[784, d]` of images in [0, 1]."""
    sample = images[:10_000].reshape(10_000, -1).astype(np.float32) / 255
    mean = sample.mean(axis=0)
    return mean, np.linalg.svd(sample - mean, full_matrices=False)[2][:DIM].T


def million_rows(data: Path) -> SegmentRows:
    """Principal components of the shifted images, with the residuals of a uniform guess."""
    train = fashion_mnist.load("train", data)
    mean, axes = axes_of(train.images)
    embeddings = np.concatenate([(part - mean) @ axes for part in shifted_images(train.images)])
    targets = np.tile(train.labels, len(_SHIFTS)).astype(np.int32)
    return SegmentRows(
        embeddings=embeddings.astype(np.float32),
        residuals=(np.eye(WIDTH)[targets] - 1 / WIDTH).astype(np.float32),
        targets=targets,
        sequences=np.arange(1, len(targets) + 1),
        weights=np.ones(len(targets), np.float32),
    )


def ensure_segment(folder: Path, data: Path) -> None:
    """Builds the segment unless it is there; one of before there were sketches is built anew."""
    if (folder / "segment.json").is_file() and (folder / "sketches.npy").is_file():
        return
    shutil.rmtree(folder, ignore_errors=True)
    rows = million_rows(data)
    print(f"building {len(rows)} rows of {DIM} numbers in {folder}, minutes")
    folder.parent.mkdir(parents=True, exist_ok=True)
    build_segment(folder, rows, GraphSettings(), SHAPE)


def anonymous_kib() -> int:
    """Private memory of this process that no file backs, as the kernel counts it."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1])
    raise RuntimeError("the kernel does not tell")


def open_mapped(folder: Path) -> Callable[[NDArray[np.float32]], object]:
    """Opens the segment as the service does; gives its search."""
    segment = SealedSegment.open(folder, SHAPE)
    return lambda query: _kernel.correct([segment.native], query, WIDTH, _K, _EF, 1.0, 0.0)


def open_loaded(folder: Path) -> Callable[[NDArray[np.float32]], object]:
    """Loads the same graph with hnswlib; gives its search."""
    index = hnswlib.Index("l2", DIM)
    index.load_index(str(folder / "graph.hnsw"))
    index.set_ef(_EF)
    return lambda query: index.knn_query(query, _K)


WAYS = {"mapped": open_mapped, "hnswlib": open_loaded}


def measure(way: str, folder: Path) -> dict[str, float]:
    """Milliseconds to open and to search first, MB of anonymous memory; in this process."""
    query = np.zeros((1, DIM), np.float32)
    before, started = anonymous_kib(), time.perf_counter()
    search = WAYS[way](folder)
    opened, after = time.perf_counter(), anonymous_kib()
    search(query)
    return {
        "open_ms": (opened - started) * 1e3,
        "anonymous_mb": (after - before) / 1024,
        "first_search_ms": (time.perf_counter() - opened) * 1e3,
    }


def main() -> None:
    """Builds what is missing, measures each way in its own process, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the four Fashion-MNIST files")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out"))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = arguments.out / "million" / "memories"
    if arguments.way:
        print(json.dumps(measure(arguments.way, folder)))
        return
    ensure_segment(folder, fashion_mnist.data_folder(arguments.data))
    results = {}
    for way in WAYS:
        command = [sys.executable, "-m", __spec__.name, "--out", str(arguments.out), "--way", way]
        runs = [
            json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            for _ in range(arguments.runs)
        ]
        results[way] = {name: float(np.median([run[name] for run in runs])) for name in runs[0]}
    print(f"{'1,020,000 rows, d = 128':26}{'open':>12}{'anonymous':>14}{'first search':>16}")
    for way, result in results.items():
        print(
            f"{way:26}{result['open_ms']:>9.1f} ms{result['anonymous_mb']:>11.1f} MB"
            f"{result['first_search_ms']:>13.2f} ms"
        )
    (arguments.out / "mapped.json").write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
