"""Builds a sealed segment: a graph, sketches and the rows beside it, and checksums to close it.

Before it is closed it is asked for its own rows: one that does not find them is no segment.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from resmem_service import durable
from resmem_service.memory.rows import MemoryShape, SegmentRows
from resmem_service.memory.search import _kernel
from resmem_service.memory.segments.copies import COPY_ARRAYS, write_copies
from resmem_service.memory.segments.graph_file import GraphVectors
from resmem_service.memory.segments.graph_settings import GraphSettings
from resmem_service.memory.segments.hnsw_graph import GRAPH_FILE, Graph, carried_on, new_graph
from resmem_service.memory.segments.sealed_segment import (
    ARRAYS,
    ENTRIES,
    SEGMENT_FORMAT,
    SealedSegment,
    native_segment,
)
from resmem_service.memory.segments.self_recall import LEAST_RECALL, SelfRecall, most_entries
from resmem_service.memory.segments.sketches import SKETCH_ARRAYS, write_sketches

__all__ = ["UnreachableRows", "build_segment"]

_SEED: Final = 1
_ROUNDS: Final = 3
"""An entry may stand in the way to an element that was found without it."""


class UnreachableRows(RuntimeError):
    """A segment does not find enough of its own rows, however its graph was built."""


def build_segment(
    folder: Path,
    rows: SegmentRows | None,
    graph: GraphSettings,
    shape: MemoryShape,
    *,
    base: SealedSegment | None = None,
    progress: Callable[[int], None] | None = None,
    least_recall: float = LEAST_RECALL,
) -> None:
    """Writes a sealed segment into the new folder `folder`, synced, `segment.json` last.

    hnswlib holds the GIL while it saves: call this in a process of its own, not in a server.

    Args:
        folder: must not exist; its parent must.
        rows: what to add; row i of the segment is row i of the arrays, those of `base` first.
        graph: build parameters; of a carried-on graph only threads and `ef` count.
        shape: sizes of the memories, and how their residuals are stored.
        base: a segment whose rows come first, forgotten ones included, and whose graph is carried
            on where that is possible, so that only `rows` are inserted.
        progress: called with the number of rows added since the last call.
        least_recall: share of its own rows that the segment must find. A graph that does not is
            built once more, with twice the links and in another order.

    Raises:
        ValueError: neither rows nor a base.
        FileExistsError: `folder` exists.
        UnreachableRows: the second graph finds too few as well; the folder is not a segment.
        OSError: the disk refused; the folder may be left half-written and is not a segment.
    """
    if rows is None and base is None:
        raise ValueError("a segment needs rows")
    folder.mkdir()
    build = _Build(folder, rows, graph, shape, base)
    build.write_rows()
    for made in build.graphs(progress or (lambda _: None)):
        recall = build.write_graph(made)
        if recall >= least_recall:
            _write_description(folder, len(made.first), shape, recall)
            return
    raise UnreachableRows(
        f"the segment finds only {recall:.1%} of its own rows at ef = {graph.ef}, "
        f"less than {least_recall:.1%}: it is not published"
    )


class _Build:
    """The files of one segment, but for its description."""

    def __init__(
        self,
        folder: Path,
        rows: SegmentRows | None,
        graph: GraphSettings,
        shape: MemoryShape,
        base: SealedSegment | None,
    ) -> None:
        self._folder = folder
        self._rows = rows
        self._graph = graph
        self._shape = shape
        self._base = base

    def write_rows(self) -> None:
        """Writes everything that does not depend on the graph."""
        base, rows = self._base, self._rows
        for name in ARRAYS:
            parts = [] if base is None else [np.load(base.folder / f"{name}.npy")]
            parts += [] if rows is None else [getattr(rows, name)]
            self._save(name, parts[0] if len(parts) == 1 else np.concatenate(parts))

    def graphs(self, advance: Callable[[int], None]) -> Iterator[Graph]:
        """Graphs of all rows, the cheapest first; each is written over the one before."""
        folder, graph = self._folder, self._graph
        made = None
        if self._base is not None:
            added = None if self._rows is None else self._rows.embeddings
            made = carried_on(folder, self._base, added, graph, advance)
            if made is not None:
                yield made
        if made is None:
            yield new_graph(folder, self._embeddings, graph, advance)
        dense = replace(graph, m=2 * graph.m, ef_construction=2 * graph.ef_construction)
        order = np.random.default_rng(_SEED).permutation(len(self._embeddings))
        yield new_graph(folder, self._embeddings, dense, lambda _: None, order=order)

    def write_graph(self, graph: Graph) -> float:
        """Writes what goes with a graph; returns the share of its own rows that it finds."""
        for name in (*SKETCH_ARRAYS, *COPY_ARRAYS, ENTRIES):
            (self._folder / f"{name}.npy").unlink(missing_ok=True)
        write_copies(self._folder, graph.first, np.load(self._folder / "sequences.npy"))
        write_sketches(self._folder, graph.content, self._shape.dim)
        recall = self._write_entries(graph)
        if recall < LEAST_RECALL and self._unsketched():
            recall = self._write_entries(graph)
        return recall

    def _write_entries(self, graph: Graph) -> float:
        """Makes entries of the elements that are not found, if those are not too many."""
        entries = graph.entries
        for _ in range(_ROUNDS):
            native = self._opened(graph, entries)
            found = SelfRecall.thorough(native, self._graph.ef)
            wanted = np.union1d(entries, found.missed)
            if len(wanted) > most_entries(native.elements, self._shape.dim):
                break
            if len(wanted):
                self._save(ENTRIES, wanted)
            if not len(found.missed):
                break
            entries = wanted
        else:
            found = found.again(self._opened(graph, entries), self._graph.ef)
        return found.share

    def _unsketched(self) -> bool:
        """Removes the sketches, which may be what leads a search astray; False without any."""
        paths = [self._folder / f"{name}.npy" for name in SKETCH_ARRAYS]
        if not paths[0].exists():
            return False
        for path in paths:
            path.unlink()
        return True

    def _opened(self, graph: Graph, entries: NDArray[np.uint32]) -> _kernel.SealedSegment:
        paths = self._folder.glob("*.npy")
        arrays: dict[str, NDArray[Any]] = {
            path.name: np.load(path, mmap_mode="r") for path in paths
        }
        arrays |= {GRAPH_FILE: graph.content, f"{ENTRIES}.npy": entries}
        return native_segment(self._folder, arrays, self._shape)

    @cached_property
    def _embeddings(self) -> NDArray[np.float32]:
        parts = [] if self._rows is None else [self._rows.embeddings]
        if self._base is not None:
            path = self._base.folder / GRAPH_FILE
            vectors = GraphVectors(path, self._shape.dim, self._base.rows)
            parts.insert(0, vectors.take(np.arange(len(vectors))))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _save(self, name: str, array: NDArray[Any]) -> None:
        np.save(self._folder / f"{name}.npy", array)


def _write_description(folder: Path, rows: int, shape: MemoryShape, recall: float) -> None:
    files = {}
    for path in sorted(folder.iterdir()):
        durable.sync(path)
        files[path.name] = {"sha256": durable.sha256_of(path), "bytes": path.stat().st_size}
    description = {
        "format": SEGMENT_FORMAT,
        "rows": rows,
        "dim": shape.dim,
        "width": shape.width,
        "residuals": shape.codec.name,
        "recall": recall,
        "files": files,
    }
    durable.write_atomically(
        folder / "segment.json", json.dumps(description, indent=2).encode() + b"\n"
    )
