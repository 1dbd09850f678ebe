"""Makes the graph of a segment with hnswlib: one element for all rows with equal embeddings."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import hnswlib
import numpy as np
from numpy.typing import NDArray

from resmem_service.memory.search import _kernel
from resmem_service.memory.segments.copies import first_of_equals, read_firsts
from resmem_service.memory.segments.graph_file import graph_records
from resmem_service.memory.segments.graph_settings import GraphSettings
from resmem_service.memory.segments.sealed_segment import SealedSegment
from resmem_service.resources import usable_cpus

__all__ = ["GRAPH_FILE", "Graph", "carried_on", "new_graph"]

GRAPH_FILE = "graph.hnsw"

_CHUNK_ROWS = 4096

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph file, written and in an order of locality."""

    content: NDArray[np.uint8]
    """Its bytes."""
    first: NDArray[np.int64]
    """Of each of n rows the first that is equal to it: the label of the element of both."""
    entries: NDArray[np.uint32]
    """Elements that walks begin at, as far as the base had some."""


def new_graph(
    folder: Path,
    embeddings: NDArray[np.float32],
    settings: GraphSettings,
    advance: Advance,
    *,
    order: NDArray[np.int64] | None = None,
) -> Graph:
    """The graph of rows `[n, d]`, inserted in this order.

    Args:
        folder: receives the file.
        embeddings: finite.
        settings: how to build.
        advance: told of the rows added since the last call.
        order: a permutation `[n]` of the rows; by default they come in their own.

    Raises:
        OSError: the disk refused.
    """
    first = first_of_equals(embeddings)
    index = hnswlib.Index(space="l2", dim=embeddings.shape[1])
    index.init_index(
        max_elements=len(np.unique(first)), M=settings.m, ef_construction=settings.ef_construction
    )
    rows = np.arange(len(first)) if order is None else order
    _insert(index, embeddings, rows[first[rows] == rows], 0, settings, advance)
    advance(len(first) - index.get_current_count())
    return Graph(_saved(index, folder), first, np.zeros(0, np.uint32))


def carried_on(
    folder: Path,
    base: SealedSegment,
    embeddings: NDArray[np.float32] | None,
    settings: GraphSettings,
    advance: Advance,
) -> Graph | None:
    """The graph of a segment with rows `[n, d]` inserted, numbered after those of the base.

    None where the base has elements with equal vectors, as it may if it was built before they were
    one: what is unreachable in it would stay so.

    Raises:
        OSError: the disk refused.
    """
    dim, held = base.native.dim, base.rows
    records = graph_records(np.memmap(base.folder / GRAPH_FILE, np.uint8, mode="r"), dim)
    labels, elements = records["label"].astype(np.int64), len(records)
    added = np.zeros((0, dim), np.float32) if embeddings is None else embeddings
    equal = first_of_equals(added, among=records["vector"])
    if not np.array_equal(equal[:elements], np.arange(elements)):
        return None
    numbers = np.concatenate([labels, held + np.arange(len(added))])
    first = np.concatenate([read_firsts(base.folder, held), numbers[equal[elements:]]])
    new = np.flatnonzero(first[held:] == np.arange(held, len(first)))
    index = hnswlib.Index(space="l2", dim=dim)
    index.load_index(str(base.folder / GRAPH_FILE), max_elements=elements + len(new))
    _insert(index, added, new, held, settings, advance)
    advance(len(added) - len(new))
    content = _saved(index, folder)
    entries = np.flatnonzero(
        np.isin(graph_records(content, dim)["label"], labels[base.entries])
    ).astype(np.uint32)
    return Graph(content, first, entries)


def _insert(
    index: hnswlib.Index,
    embeddings: NDArray[np.float32],
    rows: NDArray[np.int64],
    held: int,
    settings: GraphSettings,
    advance: Advance,
) -> None:
    threads = settings.threads or usable_cpus()
    for start in range(0, len(rows), _CHUNK_ROWS):
        chunk = rows[start : start + _CHUNK_ROWS]
        index.add_items(embeddings[chunk], held + chunk, num_threads=threads)
        advance(len(chunk))


def _saved(index: hnswlib.Index, folder: Path) -> NDArray[np.uint8]:
    path, count, links, dim = folder / GRAPH_FILE, index.get_current_count(), index.M, index.dim
    index.save_index(str(path))
    del index  # as large as what comes next
    # save_index reports no write error: a full disk leaves a short file and no exception.
    least = 96 + count * (4 + 2 * links * 4 + dim * 4 + 8) + count * 4
    if path.stat().st_size < least:
        raise OSError(f"{path} was not written whole: {path.stat().st_size} bytes of {least}")
    content = _kernel.reordered(np.fromfile(path, np.uint8), dim)
    content.tofile(path)
    return content
