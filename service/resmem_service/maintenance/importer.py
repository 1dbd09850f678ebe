"""`resmem import`: memories out of a file into a state, beside a running service or without one.

    file -> entries -> checked memories -> (base model where it must run) -> ResidualMemory.append

A batch is checked whole before any of it is written. Every memory has an id, its own or one made
from its content, so that importing a file again, or after it was mended, adds only what is missing.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from resmem_service.bundle.store import Bundle
from resmem_service.errors import BundleError, InvalidInput, QueueFull
from resmem_service.extra import require
from resmem_service.inference.residuals import base_prediction, residuals
from resmem_service.inference.rows import Rows
from resmem_service.maintenance.entry import Entry, EntryReader
from resmem_service.maintenance.json_lines import JsonLinesReader
from resmem_service.maintenance.portable import PortableFormat, PortableMemory, Vectors
from resmem_service.memory.journal.journal import Appended, Memories
from resmem_service.memory.memory import ResidualMemory
from resmem_service.progress import Progress

if TYPE_CHECKING:
    from resmem_service.inference.base_model import BaseModel, Provider

__all__ = ["Imported", "import_memories"]

_BATCH_ROWS: Final = 1024
_MODEL_ROWS: Final = 256
_RETRY_S: Final = 0.05
_PARQUET: Final = (".parquet", ".pq")


@dataclass(slots=True)
class Imported:
    """What became of the entries of a file."""

    created: int = 0
    replaced: int = 0
    unchanged: int = 0
    """There already, with this content."""
    skipped: int = 0
    """Not fit to be memories."""
    embedded: int = 0
    """For which the base model ran."""


def import_memories(
    bundle: Bundle,
    memory: ResidualMemory,
    source: Path,
    *,
    skip_bad: bool,
    provider: "Provider",
    progress: Progress,
    threads: int | None = None,
    max_weight: float | None = None,
) -> Imported:
    """Adds the memories of a file.

    Args:
        bundle: whose state takes them.
        memory: of that state.
        source: a `.jsonl` or `.parquet` file.
        skip_bad: pass over entries that are no memories of this bundle, and say so.
        provider: what runs the base model, which is loaded where an entry needs it.
        progress: told how far it has come.
        threads: of the base model; None for one a CPU.
        max_weight: largest importance of a memory; by default the bundle's own.

    Raises:
        BundleError: an entry is no memory: nothing of its batch was written. Or no such file.
        JournalUnavailable: the journal cannot be written; what was written before stays.
    """
    say = progress.say if skip_bad else None
    run = _Run(bundle, memory, provider, threads, say, source, max_weight)
    try:
        reader = _open(source)
        entries = iter(reader)
        with progress.bar(source.name, reader.total, unit=reader.unit) as advance:
            while batch := list(islice(entries, _BATCH_ROWS)):
                run.take(batch, reader.noun)
                advance(sum(entry.size for entry in batch))
    except OSError as error:
        raise BundleError(f"{source} cannot be read: {error.strerror or error}") from error
    return run.imported


def _open(source: Path) -> EntryReader:
    if not source.is_file():
        raise BundleError(f"there is no file {source}")
    if source.suffix in _PARQUET:
        require("pyarrow", f"reading {source}")
        from resmem_service.maintenance.parquet import ParquetReader

        return ParquetReader(source)
    return JsonLinesReader(source)


class _Run:
    """One import."""

    def __init__(
        self,
        bundle: Bundle,
        memory: ResidualMemory,
        provider: "Provider",
        threads: int | None,
        say: Callable[[str], None] | None,
        source: Path,
        max_weight: float | None,
    ) -> None:
        self.imported = Imported()
        self._bundle = bundle
        self._memory = memory
        self._provider = provider
        self._threads = threads
        self._say = say
        self._source = source
        self._form = PortableFormat(bundle.manifest, max_weight=max_weight)

    def take(self, batch: Sequence[Entry], noun: str) -> None:
        """Checks a batch, and then writes it."""
        good: list[tuple[Entry, PortableMemory]] = []
        for entry in batch:
            try:
                good.append((entry, self._load(entry)))
            except InvalidInput as error:
                self._refuse(entry, noun, error)
        vectors = self._vectors(good, noun)
        ready = [(memory, vectors[at]) for at, (_, memory) in enumerate(good) if at in vectors]
        appended = [(self._append(group), len(group)) for group in _groups(ready)]
        for future, rows in appended:
            reply: Appended = future()
            self.imported.created += reply.created
            self.imported.replaced += reply.replaced
            self.imported.unchanged += rows - reply.created - reply.replaced

    def _load(self, entry: Entry) -> PortableMemory:
        if isinstance(entry.value, Exception):
            raise InvalidInput(f"is not JSON: {entry.value}")
        return self._form.load(entry.value)

    def _refuse(self, entry: Entry, noun: str, error: InvalidInput) -> None:
        field = f"{error.field}: " if error.field else ""
        where = f"{self._source}, {noun} {entry.number}: {field}{error.message}"
        self.imported.skipped += 1
        if self._say is None:
            done = self.imported.created + self.imported.replaced + self.imported.unchanged
            raise BundleError(
                f"{where}. {done} memories before its batch are imported; mend it and import "
                "again, or use --skip-bad"
            ) from error
        self._say(f"skipped: {where}")

    def _vectors(
        self, good: Sequence[tuple[Entry, PortableMemory]], noun: str
    ) -> dict[int, Vectors]:
        """By place in `good`; without those that the model or the codec refuses."""
        found = {at: memory.vectors for at, (_, memory) in enumerate(good) if memory.vectors}
        waiting: dict[object, list[int]] = {}
        for at, (_, memory) in enumerate(good):
            if at not in found:
                waiting.setdefault(memory.rows.signature, []).append(at)
        for places in waiting.values():
            for start in range(0, len(places), _MODEL_ROWS):
                self._embed(good, places[start : start + _MODEL_ROWS], noun, found)
        return found

    def _embed(
        self,
        good: Sequence[tuple[Entry, PortableMemory]],
        places: list[int],
        noun: str,
        found: dict[int, Vectors],
    ) -> None:
        """Runs rows of one shape; by bisection those at fault are told from the others."""
        try:
            vectors = self._compute([good[at][1] for at in places])
        except InvalidInput as error:
            if len(places) == 1:
                self._refuse(good[places[0]][0], noun, error)
                return
            middle = len(places) // 2
            self._embed(good, places[:middle], noun, found)
            self._embed(good, places[middle:], noun, found)
        else:
            self.imported.embedded += len(places)
            found.update(zip(places, vectors, strict=True))

    def _compute(self, memories: Sequence[PortableMemory]) -> list[Vectors]:
        manifest = self._bundle.manifest
        output = self._model.run(Rows.concatenate([memory.rows for memory in memories]))
        if not (np.isfinite(output.logits).all() and np.isfinite(output.embeddings).all()):
            raise InvalidInput("the model answers it with NaN or infinity", "inputs")
        base = base_prediction(output.logits, manifest.task, manifest.parameters.temperature)
        remaining = residuals(base, _targets(memories), manifest.task)
        try:
            manifest.memory_shape().codec.encode(remaining)
        except ValueError as error:
            raise InvalidInput(str(error), "target") from error
        return [Vectors(*pair) for pair in zip(output.embeddings, remaining, strict=True)]

    @cached_property
    def _model(self) -> "BaseModel":
        # Here, not above: memories that bring their vectors need no ONNX Runtime.
        from resmem_service.inference.base_model import BaseModel

        model = BaseModel(
            self._bundle.model_path,
            inputs=self._bundle.manifest.inputs,
            provider=self._provider,
            threads=self._threads,
        )
        # Warm, so that what it refuses from then on is the row's fault.
        model.warm_up(_MODEL_ROWS)
        return model

    def _append(self, group: Sequence[tuple[PortableMemory, Vectors]]) -> Callable[[], Appended]:
        memories = Memories(
            ids=[memory.id for memory, _ in group],
            inputs=[memory.rows.encode()[0] for memory, _ in group],
            targets=_targets([memory for memory, _ in group]),
            embeddings=np.stack([vectors.embedding for _, vectors in group]),
            residuals=np.stack([vectors.residual for _, vectors in group]),
            weights=np.array([memory.weight for memory, _ in group]),
            source=group[0][0].source,
            created_ms=[memory.created_ms for memory, _ in group],
        )
        while True:
            try:
                return self._memory.append(memories).result
            except QueueFull:
                time.sleep(_RETRY_S)  # sealing is behind: there is no hurry


def _groups(
    ready: Sequence[tuple[PortableMemory, Vectors]],
) -> Iterator[list[tuple[PortableMemory, Vectors]]]:
    """Neighbours of one source; a new one where an id comes again, so that the last one stays."""
    group: list[tuple[PortableMemory, Vectors]] = []
    ids: set[str] = set()
    for memory, vectors in ready:
        if group and (memory.source != group[0][0].source or memory.id in ids):
            yield group
            group, ids = [], set()
        group.append((memory, vectors))
        ids.add(memory.id)
    if group:
        yield group


def _targets(
    memories: Sequence[PortableMemory],
) -> NDArray[np.int32] | NDArray[np.float32]:
    first = memories[0].target
    if isinstance(first, int):
        return np.array([memory.target for memory in memories], np.int32)
    return np.stack([np.asarray(memory.target, np.float32) for memory in memories])
