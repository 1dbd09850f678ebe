"""A new version of a model takes over the memories that were taught to an older one.

    old journal: input, target -> new base model -> embedding, residual -> new journal

What stays is the id, the target, the weight, the source, the time and the order. The old state is
only read, may be served meanwhile, and stays whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from resmem_service.bundle.manifest import Manifest
from resmem_service.bundle.store import Bundle
from resmem_service.durable import sha256_of
from resmem_service.errors import BundleError
from resmem_service.inference.base_model import BaseModel, Provider
from resmem_service.memory import fitted
from resmem_service.memory.journal.journal import StoredMemory
from resmem_service.memory.journal.sqlite.eviction import count_memories
from resmem_service.memory.journal.sqlite.takeover import Totals
from resmem_service.memory.options import MemoryOptions
from resmem_service.memory.segments.folders import StateFolders
from resmem_service.migrate.embedder import Embedder
from resmem_service.migrate.takeover import Takeover, take_over
from resmem_service.migrate.translation import Translation
from resmem_service.progress import Progress, Silent

__all__ = ["Rebased", "rebase"]

BATCH_ROWS: Final = 256
_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Rebased:
    """What a run did, and what it leaves to be known."""

    totals: Totals
    """What became of the old version's memories, in all runs so far."""
    carried: int
    """Memories that this run took over."""
    forgotten: int
    """Those that it forgot, since the old version no longer has them."""
    fitted_forgotten: int
    """Memories of the old bundle that were forgotten there, which says nothing of the new one."""
    fitted_names: int
    """Memories carried by this run under an id that a memory of the new bundle has as well."""
    state: Path
    """Where the memories are now."""


class _Run:
    """One run of `rebase`: its counts, through both passes over the old state."""

    def __init__(
        self,
        manifest: Manifest,
        embedder: Embedder,
        progress: Progress,
        *,
        skip_unfit: bool,
        options: MemoryOptions,
    ) -> None:
        self._manifest = manifest
        self._embedder = embedder
        self._progress = progress
        self._skip_unfit = skip_unfit
        self._options = options
        self.carried = self.forgotten = self.fitted_names = 0

    def fill(self, takeover: Takeover, journal: Path, batch_rows: int) -> None:
        """Brings the new state up to the old one, of which `journal` is the journal."""
        done, total = sum(takeover.totals), count_memories(journal)
        if 0 < done < total:
            self._progress.say(f"going on: {done} of {total} memories are done")
        self._catch_up(takeover, journal, batch_rows)
        takeover.seal(
            lambda rows: self._progress.say(f"building the graph of {rows} memories"),
            # All CPUs: nobody is served yet.
            replace(self._options, graph=replace(self._manifest.graph_settings(), threads=0)),
        )
        # Once more: the first time may have taken hours, this one does not.
        self._catch_up(takeover, journal, batch_rows)
        takeover.check()

    def _catch_up(self, takeover: Takeover, journal: Path, batch_rows: int) -> None:
        self.forgotten += takeover.reconcile()
        left = max(count_memories(journal) - sum(takeover.totals), 0)
        progress = self._progress if left else Silent()
        with progress.bar("memories", left) as advance:
            for batch in takeover.batches(batch_rows):
                self._carry(takeover, batch)
                advance(len(batch))

    def _carry(self, takeover: Takeover, batch: Sequence[StoredMemory]) -> None:
        embedded = self._embedder.embed(batch)
        if embedded.unfit and not self._skip_unfit:
            raise BundleError(_complaint(embedded.unfit))
        unfit = [memory.record for memory, _ in embedded.unfit]
        self.carried += takeover.carry(embedded.arrivals, unfit)
        for memory, reason in embedded.unfit:
            self._progress.say(f"left out {memory.record.id!r}: {reason}")
        self.fitted_names += sum(
            fitted.row_of_id(old.id, self._manifest.memories) is not None
            for part in embedded.arrivals
            for old in part.old
        )


def rebase(
    old: Bundle,
    new: Bundle,
    *,
    states: Path,
    progress: Progress,
    skip_unfit: bool = False,
    provider: Provider = "auto",
    threads: int | None = None,
    options: MemoryOptions = MemoryOptions(),  # noqa: B008 - immutable
    batch_rows: int = BATCH_ROWS,
) -> Rebased:
    """Take the memories of one version over into another; call it again to go on, or to catch up.

    Args:
        old: the version that was taught; of its files only the manifest is needed.
        new: the version that is to have the memories.
        states: the folder of all state folders, `<name>/<version>`.
        progress: told how far it has come, and of each memory left out.
        skip_unfit: leave out what does not fit the new version, instead of stopping at it.
        provider: what runs the new base model.
        threads: of the new base model; None for one a CPU.
        options: how the new state is to be kept.
        batch_rows: memories per run of the model and per commit.

    Raises:
        BundleError: the versions do not fit each other, a memory does not fit, or there is no
            state to read.
        CorruptFile: a file of either is damaged.
        JournalUnavailable: a journal cannot be written, or another run is at work.
    """
    if old.manifest.version == new.manifest.version:
        raise BundleError(f"version {old.manifest.version} has its own memories already")
    source, target = (
        states / manifest.name / manifest.version for manifest in (old.manifest, new.manifest)
    )
    journal = StateFolders(source).journal
    if not journal.exists():
        raise BundleError(
            f"version {old.manifest.version} was never taught: {journal} is not there"
        )
    new.check()
    translation = Translation(old.manifest, new.manifest)
    if translation.lost:
        classes = ", ".join(translation.lost)
        progress.say(f"version {new.manifest.version} does not have these classes: {classes}")
    model = BaseModel(
        new.model_path, inputs=new.manifest.inputs, provider=provider, threads=threads
    )
    model.warm_up(batch_rows)
    embedder = Embedder(model, new.manifest, translation)
    run = _Run(new.manifest, embedder, progress, skip_unfit=skip_unfit, options=options)
    shapes = old.manifest.memory_shape(), new.manifest.memory_shape()
    # The manifest has the checksums of all files: another fit under this number is another origin.
    origin = f"{old.manifest.version}:{sha256_of(new.path / 'manifest.json')}"
    while True:
        with take_over(source, shapes[0], target, shapes[1], origin) as takeover:
            run.fill(takeover, journal, batch_rows)
            totals = takeover.totals
            fitted_forgotten = takeover.forgotten_fitted(old.manifest.memories)
            if takeover.publish():
                break
        progress.say(f"version {new.manifest.version} has a state by now: adding to that")
    return Rebased(
        totals=totals,
        carried=run.carried,
        forgotten=run.forgotten,
        fitted_forgotten=fitted_forgotten,
        fitted_names=run.fitted_names,
        state=target,
    )


def _complaint(unfit: Sequence[tuple[StoredMemory, str]]) -> str:
    shown = "; ".join(f"{memory.record.id!r}: {reason}" for memory, reason in unfit[:_SHOWN])
    more = f"; and {len(unfit) - _SHOWN} more in this batch" if len(unfit) > _SHOWN else ""
    return (
        f"memories do not fit: {shown}{more}. Forget them in the old version, or leave out with "
        "--skip-unfit all that do not fit"
    )
