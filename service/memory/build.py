"""Builds a sealed segment: hnswlib makes the graph, the rows go beside it, checksums close it."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import hnswlib
import numpy as np

from service import durable
from service.memory.graph_settings import GraphSettings
from service.memory.sealed import ARRAYS, SEGMENT_FORMAT
from service.memory.segment_rows import SegmentRows

__all__ = ["build_segment"]

_CHUNK_ROWS = 4096


def build_segment(
    folder: Path,
    rows: SegmentRows,
    graph: GraphSettings,
    *,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Writes a sealed segment into the new folder `folder`, synced, `segment.json` last.

    hnswlib holds the GIL while it saves: call this in a process of its own, not in a server.

    Args:
        folder: must not exist; its parent must.
        rows: what to store; row i of the arrays becomes label i of the graph.
        graph: build parameters.
        progress: called with the number of rows added since the last call.

    Raises:
        FileExistsError: `folder` exists.
        OSError: the disk refused; the folder may be left half-written and is not a segment.
    """
    folder.mkdir()
    count, dim = rows.embeddings.shape
    index = hnswlib.Index(space="l2", dim=dim)
    index.init_index(max_elements=count, M=graph.m, ef_construction=graph.ef_construction)
    threads = graph.threads or len(os.sched_getaffinity(0))
    for start in range(0, count, _CHUNK_ROWS):
        chunk = rows.embeddings[start : start + _CHUNK_ROWS]
        index.add_items(chunk, np.arange(start, start + len(chunk)), num_threads=threads)
        if progress is not None:
            progress(len(chunk))
    index.save_index(str(folder / "graph.hnsw"))
    _check_saved(folder / "graph.hnsw", count, dim, graph.m)
    for name in ARRAYS:
        np.save(folder / f"{name}.npy", np.ascontiguousarray(getattr(rows, name)))
    _write_description(folder, count, dim, rows.residuals.shape[1])


def _check_saved(path: Path, count: int, dim: int, m: int) -> None:
    # save_index reports no write error: a full disk leaves a short file and no exception.
    least = 96 + count * (4 + 2 * m * 4 + dim * 4 + 8) + count * 4
    if path.stat().st_size < least:
        raise OSError(f"{path} was not written whole: {path.stat().st_size} bytes of {least}")


def _write_description(folder: Path, rows: int, dim: int, width: int) -> None:
    files = {}
    for path in sorted(folder.iterdir()):
        durable.sync(path)
        files[path.name] = {"sha256": durable.sha256_of(path), "bytes": path.stat().st_size}
    description = {
        "format": SEGMENT_FORMAT,
        "rows": rows,
        "dim": dim,
        "width": width,
        "files": files,
    }
    durable.write_atomically(
        folder / "segment.json", json.dumps(description, indent=2).encode() + b"\n"
    )
