"""Builds a sealed segment: hnswlib makes the graph, which is then put in an order of locality;
sketches and the rows go beside it, checksums close it.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hnswlib
import numpy as np
from numpy.typing import NDArray

from service import durable
from service.memory import _kernel
from service.memory.graph_settings import GraphSettings
from service.memory.sealed import ARRAYS, SEGMENT_FORMAT, SealedSegment
from service.memory.segment_rows import MemoryShape, SegmentRows
from service.memory.sketches import write_sketches
from service.resources import usable_cpus

__all__ = ["build_segment"]

_CHUNK_ROWS = 4096


def build_segment(
    folder: Path,
    rows: SegmentRows | None,
    graph: GraphSettings,
    shape: MemoryShape,
    *,
    base: SealedSegment | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Writes a sealed segment into the new folder `folder`, synced, `segment.json` last.

    hnswlib holds the GIL while it saves: call this in a process of its own, not in a server.

    Args:
        folder: must not exist; its parent must.
        rows: what to add; label i of the graph is row i of the arrays, those of `base` first.
        graph: build parameters; of a carried-on graph only the number of threads counts.
        shape: sizes of the memories, and how their residuals are stored.
        base: a segment whose rows come first, forgotten ones included, and whose graph is carried
            on, so that only `rows` are inserted.
        progress: called with the number of rows added since the last call.

    Raises:
        ValueError: neither rows nor a base.
        FileExistsError: `folder` exists.
        OSError: the disk refused; the folder may be left half-written and is not a segment.
    """
    if rows is None and base is None:
        raise ValueError("a segment needs rows")
    folder.mkdir()
    index = _start_index(rows, graph, base)
    if rows is not None:
        threads = graph.threads or usable_cpus()
        held = 0 if base is None else base.rows
        for start in range(0, len(rows), _CHUNK_ROWS):
            chunk = rows.embeddings[start : start + _CHUNK_ROWS]
            labels = np.arange(held + start, held + start + len(chunk))
            index.add_items(chunk, labels, num_threads=threads)
            if progress is not None:
                progress(len(chunk))
    graph_path, count, links = folder / "graph.hnsw", index.get_current_count(), index.M
    index.save_index(str(graph_path))
    del index  # as large as what comes next
    _check_saved(graph_path, count, shape.dim, links)
    ordered = _kernel.reordered(np.fromfile(graph_path, np.uint8), shape.dim)
    ordered.tofile(graph_path)
    write_sketches(folder, ordered, shape.dim)
    for name in ARRAYS:
        parts = [part[name] for part in (_base_arrays(base), _arrays(rows)) if part]
        np.save(folder / f"{name}.npy", parts[0] if len(parts) == 1 else np.concatenate(parts))
    _write_description(folder, count, shape)


def _start_index(
    rows: SegmentRows | None, graph: GraphSettings, base: SealedSegment | None
) -> hnswlib.Index:
    added = 0 if rows is None else len(rows)
    if base is not None:
        index = hnswlib.Index(space="l2", dim=base.native.dim)
        index.load_index(str(base.folder / "graph.hnsw"), max_elements=base.rows + added)
        return index
    assert rows is not None
    index = hnswlib.Index(space="l2", dim=rows.embeddings.shape[1])
    index.init_index(max_elements=added, M=graph.m, ef_construction=graph.ef_construction)
    return index


def _arrays(rows: SegmentRows | None) -> dict[str, NDArray[Any]]:
    return {} if rows is None else {name: getattr(rows, name) for name in ARRAYS}


def _base_arrays(base: SealedSegment | None) -> dict[str, NDArray[Any]]:
    return {} if base is None else {name: np.load(base.folder / f"{name}.npy") for name in ARRAYS}


def _check_saved(path: Path, count: int, dim: int, m: int) -> None:
    # save_index reports no write error: a full disk leaves a short file and no exception.
    least = 96 + count * (4 + 2 * m * 4 + dim * 4 + 8) + count * 4
    if path.stat().st_size < least:
        raise OSError(f"{path} was not written whole: {path.stat().st_size} bytes of {least}")


def _write_description(folder: Path, rows: int, shape: MemoryShape) -> None:
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
        "files": files,
    }
    durable.write_atomically(
        folder / "segment.json", json.dumps(description, indent=2).encode() + b"\n"
    )
