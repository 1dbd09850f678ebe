"""Opens and searches segments whose files were changed at random.

    python -m tests.faults.fuzzed_segment FOLDER FIRST COUNT

A process of its own: where the promise is broken it dies of a signal, or of a sanitizer, after it
has printed the number of the case. The same number is the same case again.
"""

import json
import shutil
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from resmem_service.errors import CorruptFile
from resmem_service.memory.rows import MemoryShape, SegmentRows
from resmem_service.memory.search import _kernel
from resmem_service.memory.search.codec import ResidualCodec
from resmem_service.memory.segments.build import build_segment
from resmem_service.memory.segments.graph_settings import GraphSettings
from resmem_service.memory.segments.sealed_segment import SealedSegment

ROWS, DIM, WIDTH = 90, 12, 5
WORDS: Final = [
    *(struct.pack("<I", value) for value in (0, 1, ROWS - 1, ROWS, 1 << 16, 1 << 31, 0xFFFFFFFF)),
    *(struct.pack("<f", value) for value in (np.nan, -np.nan, np.inf, -np.inf, 3e38, -1.0)),
    *(struct.pack("<q", value) for value in (0, 1, -1, ROWS, 1 << 62, -1 << 63)),
    b"\xff\xff", b"\x00\x80",
]  # fmt: skip


@dataclass(frozen=True)
class Segment:
    """A sound one: its files by name, and the shape that it is opened with."""

    shape: MemoryShape
    files: dict[str, bytes]


def segments(folder: Path) -> list[Segment]:
    """One with all files that there may be, one without sketches, one without equal rows."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(ROWS, DIM)).astype(np.float32)
    with_copies = vectors.copy()
    with_copies[::3] = vectors[0]
    far = with_copies.copy()
    far[-1] = 1e6
    made = []
    for name, embeddings, codec in (
        ("all", with_copies, "float32"),
        ("far", far, "top-2"),
        ("few", vectors, "float16"),
    ):
        shape = MemoryShape(DIM, WIDTH, "classification", ResidualCodec.named(codec))
        labels = (np.arange(ROWS) % WIDTH).astype(np.int32)
        residuals = shape.codec.encode((np.eye(WIDTH)[labels] - 1 / WIDTH).astype(np.float32))
        rows = SegmentRows(
            embeddings, residuals, labels, np.arange(1, ROWS + 1), np.ones(ROWS, np.float32)
        )
        build_segment(folder / name, rows, GraphSettings(m=4, threads=1, ef=50), shape)
        if name == "all":
            np.save(folder / name / "entries.npy", np.array([3, 7, 20], np.uint32))
        files = {path.name: path.read_bytes() for path in (folder / name).iterdir()}
        if name == "all":
            described = json.loads(files["segment.json"])
            described["files"]["entries.npy"] = {"bytes": 0, "sha256": ""}
            files["segment.json"] = json.dumps(described).encode()
        made.append(Segment(shape, files))
    assert {"sketches.npy", "groups.npy", "entries.npy"} <= made[0].files.keys()
    assert "sketches.npy" not in made[1].files
    assert "groups.npy" not in made[2].files
    return made


def changed(content: bytes, rng: np.random.Generator) -> bytes:
    """The content after a few changes of the kinds that disks, copies and people make."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        if not data:
            break
        # Headers, of which a file has one, are met as often as the rest.
        at = int(rng.integers(min(len(data), 128) if rng.random() < 0.2 else len(data)))
        kind = rng.choice(7, p=[0.2, 0.2, 0.2, 0.15, 0.05, 0.05, 0.15])
        if kind == 0:
            data[at] ^= 1 << int(rng.integers(8))
        elif kind <= 2:
            word = WORDS[int(rng.integers(len(WORDS)))]
            at -= at % 4 if rng.random() < 0.8 else 0
            data[at : at + len(word)] = word[: len(data) - at]
        elif kind == 3:
            data[at : at + 64] = rng.bytes(len(data[at : at + 64]))
        elif kind == 4:
            del data[at : at + int(rng.choice([1, 4, 64, len(data)]))]
        elif kind == 5:
            data[at:at] = rng.bytes(int(rng.choice([1, 4, 8, 64])))
        else:  # digits of headers and of `segment.json`
            digits = [place for place, byte in enumerate(data[:400]) if chr(byte).isdigit()]
            if digits:
                data[int(rng.choice(digits))] = ord("0") + int(rng.integers(10))
    return bytes(data)


def write(folder: Path, files: dict[str, bytes]) -> None:
    """A folder of these files anew; the description has their sizes where it can be read."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    try:
        described = json.loads(files["segment.json"])
        for name in described["files"]:
            described["files"][name]["bytes"] = len(files[name])
    except (ValueError, KeyError, TypeError):
        return
    (folder / "segment.json").write_text(json.dumps(described))


def search(opened: SealedSegment, queries: NDArray[np.float32], rng: np.random.Generator) -> None:
    """All that the kernel is asked; what it answers must be an answer, right or not.

    A vector that is another one is no concern of the search: checksums tell of that.
    """
    native = opened.native
    for row in rng.integers(native.rows, size=int(rng.integers(30))):
        native.forget(int(row))
    if rng.random() < 0.2:
        native.forget_until(int(rng.integers(ROWS)))
    k, ef = int(rng.choice([1, 5, 200])), int(rng.choice([1, 20, 200]))
    residuals, sequences, distances, weights = _kernel.correct(
        [native], queries, WIDTH, k, ef, float(rng.choice([1e-3, 1.0])), 0.5
    )
    assert residuals.shape == (len(queries), WIDTH)
    assert not np.isnan(distances).any()
    assert (np.diff(np.where(np.isinf(distances), np.inf, distances), axis=1) >= 0).all() or (
        np.isinf(distances).any()
    )
    assert np.isfinite(weights).all()
    found = set(sequences[np.isfinite(distances)].tolist())
    assert found <= {native.sequence(row) for row in range(native.rows)}
    native.living()
    native.find(int(rng.integers(-5, ROWS)))
    native.finds(np.arange(native.elements, dtype=np.uint32), ef)


def reorder(graph: bytes) -> None:
    """As a new graph is, before it is written."""
    _kernel.reordered(np.frombuffer(graph, np.uint8), DIM)


def attempt(act: Callable[[], object]) -> str:
    """What became of it; whatever is none of the errors that are promised goes on."""
    try:
        act()
    except (CorruptFile, _kernel.CorruptGraph) as error:
        return type(error).__name__
    return "answered"


def run_case(number: int, sound: list[Segment], folder: Path) -> str:
    """Changes a file or two before they are opened, or one while it is mapped."""
    rng = np.random.default_rng(number)
    segment = sound[number % len(sound)]
    files = dict(segment.files)
    queries = rng.normal(size=(3, DIM)).astype(np.float32)
    if rng.random() < 0.1:
        graph = changed(files["graph.hnsw"], rng)
        return "reordered: " + attempt(lambda: reorder(graph))
    mapped_already = rng.random() < 0.2
    names = sorted(files)
    chosen = rng.choice(names, size=1 if mapped_already else int(rng.integers(1, 3)))
    if not mapped_already:
        for name in chosen:
            files[name] = changed(files[name], rng)
    write(folder, files)
    opened: list[SealedSegment] = []
    result = attempt(lambda: opened.append(SealedSegment.open(folder, segment.shape)))
    if result != "answered":
        return f"opened: {result}"
    if mapped_already:
        search(opened[0], queries, rng)
        # In place: what is mapped changes with it.
        (folder / str(chosen[0])).write_bytes(changed(files[str(chosen[0])], rng))
    return "searched: " + attempt(lambda: search(opened[0], queries, rng))


def main(folder: Path, first: int, count: int) -> None:
    sound = segments(folder)
    results: dict[str, int] = {}
    for number in range(first, first + count):
        sys.stdout.write(f"case {number}\n")
        sys.stdout.flush()
        result = run_case(number, sound, folder / "case")
        results[result] = results.get(result, 0) + 1
    sys.stdout.write(json.dumps(results) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
