"""A bundle held against its manifest."""

from collections.abc import Callable, Iterator

import numpy as np

from resmem_service.array_file import map_array
from resmem_service.bundle.store import Bundle
from resmem_service.errors import CorruptFile
from resmem_service.maintenance.file_check import fault_in
from resmem_service.maintenance.finding import Finding
from resmem_service.memory import fitted
from resmem_service.memory.segments.graph_file import GraphVectors
from resmem_service.memory.segments.sealed_segment import SealedSegment
from resmem_service.memory.segments.self_recall import POOR_RECALL

__all__ = ["check_bundle"]

_MANIFEST = "manifest.json"


def check_bundle(bundle: Bundle, advance: Callable[[int], None]) -> Iterator[Finding]:
    """Every file of a bundle by its SHA-256, then its memories row by row.

    `advance` is told of every file that was read: its bytes.
    """
    advice = (
        "memories added online are not in it and safe; put back a copy of this version, or fit it "
        "anew and give it the memories with `resmem rebase`"
    )
    subject = f"bundle {bundle.manifest.name}/{bundle.manifest.version}"
    faults = []
    for name, entry in bundle.manifest.files.items():
        fault = fault_in(bundle.path / name, entry)
        if fault is not None:
            faults.append(fault)
        advance(entry.bytes)
    for fault in faults:
        yield Finding("fault", subject, fault, advice)
    if faults:
        return
    size = sum(entry.bytes for entry in bundle.manifest.files.values())
    yield Finding("ok", subject, f"{len(bundle.manifest.files)} files, {size:,} bytes as published")
    try:
        segment = _check_memories(bundle)
        recall = segment.measure_recall(bundle.manifest.graph_settings().ef)
    except CorruptFile as error:
        yield Finding("fault", "fitted memories", error.message, advice)
    else:
        detail = f"{segment.rows:,} memories, each finite and in its place"
        yield Finding("ok", "fitted memories", detail)
        if recall < POOR_RECALL:
            yield Finding(
                "fault",
                "fitted memories",
                f"{segment.folder} finds only {recall:.1%} of its own memories: predictions miss "
                "the rest",
                "none is lost: fit this version anew, which makes equal embeddings one node, and "
                "give it the memories added online with `resmem rebase`",
            )
    known = {_MANIFEST, f"{_MANIFEST}.sha256", *bundle.manifest.files}
    for path in sorted(bundle.path.rglob("*")):
        if path.is_file() and path.relative_to(bundle.path).as_posix() not in known:
            yield Finding("note", subject, f"{path} is not a part of it")


def _check_memories(bundle: Bundle) -> SealedSegment:
    folder, shape = bundle.memories_path, bundle.manifest.memory_shape()
    segment = SealedSegment.open(folder, shape)
    vectors = GraphVectors(folder / "graph.hnsw", shape.dim, segment.rows)
    sequences = map_array(folder / "sequences.npy")
    rows = np.arange(segment.rows)
    if segment.rows != bundle.manifest.memories:
        raise CorruptFile(
            f"{folder} holds {segment.rows} memories, the manifest says {bundle.manifest.memories}"
        )
    if not np.array_equal(sequences, fitted.sequence_of(0) - rows):
        raise CorruptFile(f"{folder / 'sequences.npy'} does not number the memories in order")
    for start in range(0, segment.rows, 4096):
        some = rows[start : start + 4096]
        if not np.isfinite(vectors.take(some)).all():
            raise CorruptFile(f"{folder / 'graph.hnsw'} holds an embedding that is not finite")
    return segment
