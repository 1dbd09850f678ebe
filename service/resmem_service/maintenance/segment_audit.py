"""A sealed segment held against its checksums and against the journal that it was built from."""

import hashlib
import json
from collections.abc import Iterable
from contextlib import ExitStack
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from resmem_service.array_file import map_array, read_array
from resmem_service.errors import CorruptFile
from resmem_service.memory.journal.journal import SegmentEntry
from resmem_service.memory.rows import MemoryShape, SegmentRows
from resmem_service.memory.segments.graph_file import GraphVectors
from resmem_service.memory.segments.sealed_segment import SealedSegment
from resmem_service.memory.segments.self_recall import POOR_RECALL

__all__ = ["SegmentAudit", "Verdict"]

Verdict = Literal["sound", "damaged", "ahead", "poor"]
"""`damaged`: the journal can build it anew. `ahead`: it has rows that the journal has lost. `poor`:
its files are sound, but its graph does not find its own rows; the journal can build it anew.
"""


class SegmentAudit:
    """Opens everything when made, so that a merge that removes the folder does not disturb it.

    Attributes:
        entry: what the catalogue says.
        verdict: what is to be done, as far as was seen yet.
        reason: what is wrong, naming the file; None for nothing.

    Args:
        folder: of the segment.
        entry: its line in the catalogue.
        shape: of the memories.

    Raises:
        FileNotFoundError: the folder is not there (any more).
    """

    def __init__(self, folder: Path, entry: SegmentEntry, shape: MemoryShape) -> None:
        self.entry = entry
        self.verdict: Verdict = "sound"
        self.reason: str | None = None
        self._folder = folder
        self._checksums: dict[str, tuple[BufferedReader, str]] = {}
        self._open_files = ExitStack()
        description = folder / "segment.json"
        if not description.exists():
            raise FileNotFoundError(description)
        try:
            self._open(shape)
        except (CorruptFile, OSError) as error:
            self._condemn(str(error))

    def close(self) -> None:
        """Lets go of the files."""
        self._open_files.close()

    def check_checksums(self) -> None:
        """Reads every file and compares its SHA-256."""
        for name, (file, expected) in self._checksums.items():
            try:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                self._condemn(f"{self._folder / name} cannot be read: {error.strerror}")
                return
            if found != expected:
                self._condemn(f"{self._folder / name} differs from its checksum")
                return

    def compare(self, rows: SegmentRows) -> None:
        """Takes sound rows of the journal, those in its range among them, chunk after chunk."""
        if self.verdict == "damaged":
            return
        first, last = np.searchsorted(rows.sequences, [self.entry.first, self.entry.last + 1])
        if first == last:
            return
        chosen = slice(int(first), int(last))
        sequences = rows.sequences[chosen]
        at = np.searchsorted(self._sequences, sequences)
        there = at < len(self._sequences)
        there[there] = self._sequences[at[there]] == sequences[there]
        if not there.all():
            missing = int(sequences[~there][0])
            self._condemn(f"{self._folder} lacks memory {missing}, which the journal has")
            return
        self._seen[at] = True
        for name, mine, theirs in (
            ("graph.hnsw", self._vectors.take(at), rows.embeddings[chosen]),
            ("residuals.npy", self._residuals[at], rows.residuals[chosen]),
            ("targets.npy", self._targets[at], rows.targets[chosen]),
            ("weights.npy", self._weights[at], rows.weights[chosen]),
        ):
            if not np.array_equal(mine, theirs):
                self._condemn(f"{self._folder / name} differs from the journal")
                return

    def finish(self, forgotten: NDArray[np.int64], horizon: int, faulty: Iterable[int]) -> None:
        """Accounts for the rows that the journal did not show.

        Args:
            forgotten: sequences with a tombstone, sorted.
            horizon: everything up to it was evicted.
            faulty: sequences that the journal has, but unsound.
        """
        if self.verdict == "damaged":
            return
        left = self._sequences[~self._seen]
        left = left[(left > horizon) & ~np.isin(left, forgotten)]
        left = left[~np.isin(left, np.fromiter(faulty, np.int64))]
        if len(left):
            self.verdict = "ahead"
            self.reason = (
                f"the journal has lost {len(left)} memories that {self._folder} holds, "
                f"{left[0]} the first"
            )

    def check_recall(self, ef: int) -> None:
        """Asks a sound segment for a sample of its own rows, at the breadth of searches."""
        if self.verdict != "sound":
            return
        try:
            recall = self._segment.measure_recall(ef)
        except CorruptFile as error:
            self._condemn(error.message)
            return
        if recall < POOR_RECALL:
            self.verdict = "poor"
            self.reason = (
                f"{self._folder} finds only {recall:.1%} of its own memories: predictions miss the "
                "rest"
            )

    def _open(self, shape: MemoryShape) -> None:
        folder, entry = self._folder, self.entry
        segment = self._segment = SealedSegment.open(folder, shape)
        if segment.rows != entry.rows:
            raise CorruptFile(f"{folder} holds {segment.rows} rows instead of {entry.rows}")
        files = json.loads((folder / "segment.json").read_bytes())["files"]
        self._checksums = {
            name: (self._open_files.enter_context((folder / name).open("rb")), listed["sha256"])
            for name, listed in files.items()
        }
        self._vectors = GraphVectors(folder / "graph.hnsw", shape.dim, segment.rows)
        self._targets, self._weights = segment.targets, segment.weights
        self._residuals: NDArray[Any] = map_array(folder / "residuals.npy")
        self._sequences: NDArray[np.int64] = read_array(folder / "sequences.npy")
        rising = bool((np.diff(self._sequences) > 0).all())
        if not rising or self._sequences[0] < entry.first or self._sequences[-1] > entry.last:
            raise CorruptFile(f"{folder / 'sequences.npy'} is not in order")
        self._seen = np.zeros(segment.rows, np.bool_)

    def _condemn(self, reason: str) -> None:
        self.verdict, self.reason = "damaged", reason
        self._checksums = {}
