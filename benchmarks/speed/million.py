"""A million memories behind the real server: time to ready, memory of 1 and 4 workers, recall, and
the search while segments are sealed beside it.

    python -m benchmarks.speed.million

The memories are those of `benchmarks.speed.mapped` (1,020,000 rows, d = 128, L = 10; built once),
as the fitted segment of a bundle whose base hands its input on as the embedding. PSS counts a page
that n processes share as 1/n of it in each, so that it can be summed up.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from resmem_service.bundle.manifest import EmbeddingSpec, Manifest, Parameters
from resmem_service.bundle.store import ModelStore
from resmem_service.durable import sha256_of
from resmem_service.inference.tensor_spec import TensorSpec
from resmem_service.memory.journal.journal import Memories
from resmem_service.memory.memory import ResidualMemory
from resmem_service.memory.options import MemoryOptions
from resmem_service.memory.search.soft_knn import SoftKnn
from resmem_service.memory.segments.graph_file import GraphVectors
from resmem_service.memory.segments.sealed_segment import SealedSegment

from benchmarks import fashion_mnist
from benchmarks.quality.server import Server
from benchmarks.speed.load import Load, start
from benchmarks.speed.mapped import DIM, SHAPE, WIDTH, axes_of, ensure_segment

_OUT = Path("benchmarks/out/million")
_RULE = SoftKnn(k=50, sigma=1.0, ef=128)
_TAUGHT_ROWS = 64

Floats = NDArray[np.float32]


def base_model(path: Path) -> None:
    """A uniform guess, and the input itself as the embedding."""
    value = helper.make_tensor_value_info
    rows = value("row", TensorProto.FLOAT, ["n", DIM])
    outputs = [
        value("logits", TensorProto.FLOAT, ["n", WIDTH]),
        value("embedding", TensorProto.FLOAT, ["n", DIM]),
    ]
    nodes = [
        helper.make_node("MatMul", ["row", "nothing"], ["logits"]),
        helper.make_node("Identity", ["row"], ["embedding"]),
    ]
    nothing = numpy_helper.from_array(np.zeros((DIM, WIDTH), np.float32), "nothing")
    graph = helper.make_graph(nodes, "uniform", [rows], outputs, [nothing])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)


def ensure_bundle(store: Path, segment: Path) -> None:
    """Publishes the segment as a bundle: hard links, but for the sequences of fitted rows."""
    shutil.rmtree(store, ignore_errors=True)
    with ModelStore(store).draft("million") as draft:
        base_model(draft.path / "base.onnx")
        memories = draft.path / "memories"
        memories.mkdir()
        description = json.loads((segment / "segment.json").read_text())
        for name in description["files"]:
            os.link(segment / name, memories / name)
        sequences = memories / "sequences.npy"
        sequences.unlink()
        np.save(sequences, -1 - np.arange(description["rows"]))
        description["files"][sequences.name]["sha256"] = sha256_of(sequences)
        (memories / "segment.json").write_text(json.dumps(description, indent=2))
        manifest = Manifest(
            name="million",
            version="1",
            created=datetime.now(UTC).replace(microsecond=0),
            task="classification",
            inputs=[TensorSpec("row", "float32", (DIM,))],
            classes=[str(number) for number in range(WIDTH)],
            outputs=WIDTH,
            embedding=EmbeddingSpec(dim=DIM, tensor="row", transform="none"),
            parameters=Parameters(
                k=_RULE.k, sigma=_RULE.sigma, temperature=1.0, alpha=0.0, ef=_RULE.ef
            ),
            teaching_weight=1.0,
            recall=1.0,
            memories=description["rows"],
            scores=[],
            files=draft.files(),
        )
        draft.publish(manifest)


def queries(data: Path) -> Floats:
    """Test images on the axes that the memories lie on."""
    train, test = fashion_mnist.load("train", data), fashion_mnist.load("t10k", data)
    mean, axes = axes_of(train.images)
    pixels = test.images.reshape(len(test.images), -1).astype(np.float32) / 255
    return np.ascontiguousarray((pixels - mean) @ axes, np.float32)


class Footprint(NamedTuple):
    """MB of all processes of a server together."""

    pss: float
    anonymous: float
    """Private memory that no file backs: interpreter, ONNX Runtime, heap."""
    mapped: float
    """The bundle's files, counted once."""


def descendants(process: int) -> Iterator[int]:
    """All processes below one."""
    for thread in Path(f"/proc/{process}/task").iterdir():
        for child in map(int, (thread / "children").read_text().split()):
            yield child
            yield from descendants(child)


def footprint(processes: Iterable[int]) -> Footprint:
    """Sums up what the kernel counts for processes."""
    pss = anonymous = mapped = 0
    for process in processes:
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            name, *rest = line.split()
            pss += int(rest[0]) if name == "Pss:" else 0
            anonymous += int(rest[0]) if name == "Pss_Anon:" else 0
            mapped += int(rest[0]) if name == "Pss_File:" else 0
    return Footprint(pss / 1024, anonymous / 1024, mapped / 1024)


def serve(store: Path, rows: Floats, workers: int) -> tuple[float, Footprint]:
    """Seconds to ready, and the footprint after every worker has answered a thousand requests."""
    state = _OUT / "state"
    shutil.rmtree(state, ignore_errors=True)
    settings = {"RESMEM_WORKERS": str(workers)}
    began = time.perf_counter()
    with Server(store, "million", state, _OUT / "server.log", settings) as server:
        ready = time.perf_counter() - began
        bodies = [json.dumps({"inputs": [row], "fields": ["label"]}) for row in rows[:400].tolist()]
        start(Load(server.port, "/predict", bodies, 16, 5.0)).wait()
        return ready, footprint(descendants(os.getpid()))


def recall(memory: ResidualMemory, segment: Path, rows: Floats) -> float:
    """Share of the true k nearest among those found."""
    vectors = GraphVectors(segment / "graph.hnsw", DIM, SealedSegment.open(segment, SHAPE).rows)
    best = np.full((len(rows), _RULE.k), np.inf, np.float32)
    named = np.zeros((len(rows), _RULE.k), np.int64)
    for begin in range(0, len(vectors), 50_000):
        part = np.arange(begin, min(begin + 50_000, len(vectors)))
        some = vectors.take(part)
        squares = (some**2).sum(axis=1) - 2 * rows @ some.T
        distances = np.concatenate([best, squares], axis=1)
        names = np.concatenate([named, np.broadcast_to(part, squares.shape)], axis=1)
        order = np.argpartition(distances, _RULE.k, axis=1)[:, : _RULE.k]
        best = np.take_along_axis(distances, order, axis=1)
        named = np.take_along_axis(names, order, axis=1)
    found = -1 - memory.correct(rows, _RULE).sequences
    hits = [len(set(a.tolist()) & set(b.tolist())) for a, b in zip(found, named, strict=True)]
    return float(np.mean(hits)) / _RULE.k


class Latency(NamedTuple):
    """Milliseconds of a search of one row."""

    p50: float
    p99: float


def search(memory: ResidualMemory, rows: Floats, seconds: float) -> Latency:
    """One search every 2 ms, as a server that is not idle and not overloaded."""
    taken: list[float] = []
    ends = time.perf_counter() + seconds
    while (began := time.perf_counter()) < ends:
        memory.correct(rows[[len(taken) % len(rows)]], _RULE)
        taken.append(time.perf_counter() - began)
        time.sleep(max(0.0, 0.002 - taken[-1]))
    p50, p99 = np.percentile(taken, [50, 99]) * 1e3
    return Latency(float(p50), float(p99))


@contextmanager
def teaching(state: Path, data: Path, rate: int) -> Iterator[None]:
    """Another worker on the same state, which memorizes so many rows a second, and seals them."""
    command = [sys.executable, "-m", __spec__.name, "--teach", str(state), "--rate", str(rate)]
    process = subprocess.Popen([*command, "--data", str(data)])
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def teach(state: Path, rows: Floats, rate: int) -> None:
    """What `teaching` runs: shaken test images, until it is told to end."""
    memory = ResidualMemory.open(state, fitted=None, shape=SHAPE)
    rng = np.random.default_rng(0)
    due = time.perf_counter()
    residuals = np.full((_TAUGHT_ROWS, WIDTH), -0.1, np.float32)
    residuals[:, 0] += 1
    while True:
        shaken = rows[rng.integers(0, len(rows), _TAUGHT_ROWS)]
        shaken = (shaken + rng.normal(0, 0.1, shaken.shape)).astype(np.float32)
        memory.append(
            Memories(
                ids=[None] * _TAUGHT_ROWS,
                inputs=[row.tobytes() for row in shaken],
                targets=np.zeros(_TAUGHT_ROWS, np.int32),
                embeddings=shaken,
                residuals=residuals,
                weights=np.ones(_TAUGHT_ROWS),
            )
        ).result()
        due += _TAUGHT_ROWS / rate
        time.sleep(max(0.0, due - time.perf_counter()))


def sealing(segment: Path, rows: Floats, data: Path, rate: int, seconds: float) -> dict[str, float]:
    """The search alone, and beside a worker that learns and seals all the time."""
    state = _OUT / "state"
    shutil.rmtree(state, ignore_errors=True)
    memory = ResidualMemory.open(
        state, fitted=segment, shape=SHAPE, options=MemoryOptions(maintain=False)
    )
    memory.warm()
    print(
        f"recall@{_RULE.k} at ef {_RULE.ef}: {(found := recall(memory, segment, rows[:500])):.4f}"
    )
    search(memory, rows, seconds / 4)
    alone = search(memory, rows, seconds)
    with teaching(state, data, rate):
        while memory.size == memory.statistics().sealed_rows:
            search(memory, rows, 0.5)
        beside = search(memory, rows, seconds)
        after = memory.statistics()
    memory.close()
    sealed = after.sealed_rows - SealedSegment.open(segment, SHAPE).rows
    print(f"search alone: p50 {alone.p50:.3f} p99 {alone.p99:.3f} ms")
    print(
        f"beside {rate:,} rows/s and their sealing ({sealed:,} rows sealed, {after.segments} "
        f"segments): p50 {beside.p50:.3f} p99 {beside.p99:.3f} ms"
    )
    names = ("recall", "alone_p50_ms", "alone_p99_ms", "sealing_p50_ms", "sealing_p99_ms")
    return dict(zip(names, (found, *alone, *beside), strict=True))


def main(arguments: Sequence[str] | None = None) -> None:
    """Builds what is missing, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the four Fashion-MNIST files")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate", type=int, default=1000, help="rows memorized per second")
    parser.add_argument("--teach", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    data = fashion_mnist.data_folder(options.data)
    rows = queries(data)
    if options.teach:
        teach(options.teach, rows, options.rate)
    ensure_segment(_OUT / "memories", data)
    store = _OUT / "store"
    ensure_bundle(store, _OUT / "memories")
    segment = store / "million/1/memories"
    results: dict[str, float] = {}
    size = SealedSegment.open(segment, SHAPE)
    results["bytes_per_memory"] = size.nbytes / size.rows
    print(f"{size.rows:,} memories, {results['bytes_per_memory']:.0f} bytes each")
    results |= sealing(segment, rows, data, options.rate, options.seconds)
    for workers in (1, 4):
        ready, taken = serve(store, rows, workers)
        results |= {f"ready_{workers}_s": ready, f"pss_{workers}_mb": taken.pss}
        results |= {f"anonymous_{workers}_mb": taken.anonymous}
        print(
            f"{workers} workers: ready after {ready:.1f} s, PSS {taken.pss:,.0f} MB, of which "
            f"{taken.anonymous:,.0f} private and {taken.mapped:,.0f} files"
        )
    print(f"PSS of 4 workers: {results['pss_4_mb'] / results['pss_1_mb']:.2f} of that of one")
    shutil.rmtree(_OUT / "state", ignore_errors=True)
    (_OUT.parent / "million.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
