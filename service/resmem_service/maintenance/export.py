"""`resmem export`: the memories added online, as one file."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from resmem_service import durable
from resmem_service.bundle.manifest import Manifest
from resmem_service.bundle.store import Bundle
from resmem_service.errors import BundleError, CorruptFile, InvalidInput
from resmem_service.extra import require
from resmem_service.maintenance.entry import EntryWriter
from resmem_service.maintenance.json_lines import JsonLinesWriter
from resmem_service.maintenance.portable import PortableFormat
from resmem_service.memory import fitted
from resmem_service.memory.journal.journal import StoredMemory
from resmem_service.memory.journal.sqlite.rows import read_stored
from resmem_service.memory.journal.sqlite.snapshot import JournalSnapshot, open_snapshot
from resmem_service.memory.segments.folders import StateFolders
from resmem_service.progress import Progress

__all__ = ["export_memories"]

_PARQUET: Final = (".parquet", ".pq")
_SHOWN: Final = 10


def export_memories(
    bundle: Bundle,
    folders: StateFolders,
    target: Path,
    *,
    source: str | None,
    vectors: bool,
    skip_bad: bool,
    force: bool,
    progress: Progress,
) -> int:
    """Writes the memories of one moment, oldest first; returns how many.

    The file gets its name when it is whole and synced. The bundle's own memories are not among
    them: they have no inputs. Nor does the file tell which of those are forgotten, so that this is
    said: where it is imported, they vote until they are forgotten again.

    Args:
        bundle: whose memories they are.
        folders: of its state.
        target: ends in `.jsonl` or `.parquet`.
        source: only memories of this one.
        vectors: add embeddings and residuals, so that a bundle with the same base model can take
            them without running it.
        skip_bad: leave out damaged memories, and say so, instead of stopping at the first.
        force: replace a file that is there.
        progress: told how far it has come.

    Raises:
        BundleError: the file cannot be written, or is there already.
        CorruptFile: a memory is damaged.
    """
    if target.exists() and not force:
        raise BundleError(f"{target} is there already: --force replaces it")
    if not folders.journal.exists():
        raise BundleError(f"{folders.journal} is not there: nothing was memorized yet")
    if source == "fit":
        raise BundleError("the bundle's own memories have no inputs, and are part of the bundle")
    form = PortableFormat(bundle.manifest)
    partial = target.with_name(f".{target.name}.partial")
    say = progress.say if skip_bad else None
    exported = 0
    replaced: set[int] = set()
    try:
        with (
            open_snapshot(folders.journal) as snapshot,
            progress.bar("memories", snapshot.memories()) as advance,
            closing(_open(target, partial, bundle.manifest, vectors=vectors)) as writer,
        ):
            for chunk in _read(snapshot, say, advance):
                values = list(_dump(form, chunk, source, say, vectors=vectors))
                replaced |= _fitted_rows(chunk, bundle.manifest.memories)
                if values:
                    writer.write(values)
                exported += len(values)
            forgotten = {fitted.row_of_sequence(one) for one in snapshot.tombstones() if one < 0}
        durable.sync(partial)
        partial.replace(target)
        durable.sync(target.parent)
    except OSError as error:
        raise BundleError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
    if forgotten - replaced:
        progress.say(_of_the_forgotten(sorted(forgotten - replaced)))
    return exported


def _fitted_rows(chunk: list[StoredMemory], rows: int) -> set[int]:
    """The rows of the bundle that memories of this chunk replace."""
    named = (fitted.row_of_id(memory.record.id, rows) for memory in chunk)
    return {row for row in named if row is not None}


def _of_the_forgotten(rows: list[int]) -> str:
    named = ", ".join(fitted.id_of(row) for row in rows[:_SHOWN])
    return (
        f"forgotten memories of the bundle, which the file does not hold: {len(rows):,} ({named}"
        f"{', ...' if len(rows) > _SHOWN else ''}); forget them again with DELETE /memories/ID "
        "where the file is imported"
    )


def _open(target: Path, partial: Path, manifest: Manifest, *, vectors: bool) -> EntryWriter:
    if target.suffix == ".jsonl":
        return JsonLinesWriter(partial)
    if target.suffix in _PARQUET:
        require("pyarrow", f"writing {target}")
        from resmem_service.maintenance.parquet import ParquetWriter

        return ParquetWriter(partial, manifest, vectors=vectors)
    raise BundleError(f"{target}: give the file a name that ends in .jsonl or .parquet")


def _read(
    snapshot: JournalSnapshot, say: Callable[[str], None] | None, advance: Callable[[int], None]
) -> Iterator[list[StoredMemory]]:
    for rows in snapshot.raw():
        chunk = []
        for row in rows:
            try:
                chunk.append(read_stored(row, snapshot.shape, snapshot.path))
            except CorruptFile as error:
                if say is None:
                    raise
                say(f"left out: {error.message}")
        yield chunk
        advance(len(rows))


def _dump(
    form: PortableFormat,
    chunk: list[StoredMemory],
    source: str | None,
    say: Callable[[str], None] | None,
    *,
    vectors: bool,
) -> Iterator[dict[str, object]]:
    for memory in chunk:
        if source is not None and memory.record.source != source:
            continue
        try:
            yield form.dump(memory, vectors=vectors)
        except (CorruptFile, InvalidInput) as error:
            reason = f"memory {memory.record.sequence} (id {memory.record.id!r}): {error.message}"
            if say is None:
                raise CorruptFile(reason) from error
            say(f"left out: {reason}")
