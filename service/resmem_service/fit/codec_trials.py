"""What each residual codec costs and what it does to the scores, measured on held-out rows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from resmem_service.bundle.manifest import CodecTrial
from resmem_service.fit.batches import batches
from resmem_service.fit.neighbours import Neighbours
from resmem_service.fit.scores import mark, votes
from resmem_service.fit.tuning import Outputs, Setting
from resmem_service.inference.residuals import Task, base_prediction, residuals
from resmem_service.memory.search.codec import ResidualCodec
from resmem_service.memory.segments.sketches import sketch_bytes
from resmem_service.progress import Progress

__all__ = ["Evidence", "bytes_beside_residual", "try_codecs"]

_TABLE_CELLS: Final = 200_000_000
"""Numbers coded per codec: what bounds the time of the trials where outputs are wide."""
_FEWEST: Final = 200


@dataclass(frozen=True)
class Evidence:
    """What codecs are tried on: the reporting rows, and the residuals that correct them."""

    report: Outputs
    near: Neighbours
    """The k neighbours of each, among `memories`, its own memory not among them."""
    memories: Outputs
    task: Task
    setting: Setting

    @property
    def width(self) -> int:
        """L."""
        return int(self.report.logits.shape[1])

    def limited(self) -> Self:
        """As many of the rows as can be coded in bounded time, spread evenly over all."""
        count = len(self.report.logits)
        most = max(_FEWEST, _TABLE_CELLS // (self.near.rows.shape[1] * self.width))
        if count <= most:
            return self
        rows = np.linspace(0, count - 1, most).astype(np.int64)
        near = Neighbours(self.near.rows[rows], self.near.distances[rows])
        return type(self)(self.report.part(rows), near, self.memories, self.task, self.setting)


@dataclass(slots=True, eq=False)
class _Tally:
    """What one codec did so far."""

    codec: ResidualCodec
    marks: list[NDArray[np.float64]] = field(default_factory=list)
    changes: list[NDArray[np.float32]] = field(default_factory=list)
    """Per row `[c]` the largest change of a score."""
    dropped: list[NDArray[np.float32]] = field(default_factory=list)
    by_output: NDArray[np.float32] | float = 0.0
    """Largest change of each score `[L]`."""

    def add(self, scores: NDArray[np.float32], exact: NDArray[np.float32], targets: Any) -> None:
        apart = np.abs(scores - exact)
        self.changes.append(apart.max(axis=1))
        self.by_output = np.maximum(self.by_output, apart.max(axis=0))
        self.marks.append(mark(scores, targets))


def bytes_beside_residual(dim: int, width: int, task: Task, m: int) -> float:
    """Bytes of one memory in the files of a segment, all but its residual.

    The graph as hnswlib saves it, with `m` links per row: vector, label, `2 m` links on the lowest
    level, and on average `1 / (m - 1)` further levels of m links. Beside it the sketches.
    """
    graph = 4 + 8 * m + 4 * dim + 8 + 4 + (4 + 4 * m) / max(1, m - 1)
    target = 4 if task == "classification" else 4 * width
    sequence, weight = 8, 4
    return graph + sketch_bytes(dim, m) + target + sequence + weight


def try_codecs(
    codecs: Sequence[ResidualCodec], evidence: Evidence, beside: float, progress: Progress
) -> list[CodecTrial]:
    """Correct the reporting rows once with each codec and compare with the first, float32.

    `beside` are the bytes of a memory beside its residual. Every codec must be able to hold the
    residuals.
    """
    seen = evidence.limited()
    tallies = [_Tally(codec) for codec in codecs]
    squares = np.zeros(seen.width)
    with progress.bar("trying codecs", len(seen.near.rows)) as advance:
        for rows in batches(len(seen.near.rows), seen.near.rows.shape[1] * seen.width):
            squares += _try(tallies, seen, rows)
            advance(rows.stop - rows.start)
    units = None
    if seen.task == "regression":
        # Never below what float32 can tell apart: the fitted rows may be answered without error.
        rounding = np.finfo(np.float32).eps * np.abs(seen.report.targets).max(axis=0)
        errors = np.sqrt(squares / len(seen.near.rows))
        units = np.maximum(np.maximum(errors, rounding), np.finfo(np.float32).tiny)
    return [_trial(tally, tallies[0], beside, units) for tally in tallies]


def _try(tallies: Sequence[_Tally], seen: Evidence, rows: slice) -> NDArray[np.float64]:
    """Let every codec answer some rows; returns the squared errors of each output `[L]`."""
    asked, near = seen.report.part(rows), seen.near.part(rows.start, rows.stop)
    shape = (*near.rows.shape, seen.width)
    weights = votes(near, seen.setting).astype(np.float32)[:, None, :]
    base = base_prediction(asked.logits, seen.task, seen.setting.temperature)
    own = residuals(base, asked.targets, seen.task)
    table = _residuals(seen.memories.part(near.rows.ravel()), seen)
    exact = base + (weights @ table.reshape(shape))[:, 0]
    for tally in tallies:
        stored = tally.codec.decode(tally.codec.encode(table), seen.width)
        scores = base + (weights @ stored.reshape(shape))[:, 0]
        tally.add(scores, exact, asked.targets)
        tally.dropped.append(tally.codec.dropped_mass(own))
    if seen.task == "classification":
        return np.zeros(seen.width)
    errors: NDArray[np.float64] = np.square(exact - asked.targets, dtype=np.float64).sum(axis=0)
    return errors


def _residuals(memories: Outputs, seen: Evidence) -> NDArray[np.float32]:
    base = base_prediction(memories.logits, seen.task, seen.setting.temperature)
    return residuals(base, memories.targets, seen.task)


def _trial(
    tally: _Tally, whole: _Tally, beside: float, units: NDArray[np.float64] | None
) -> CodecTrial:
    """`units`: for regression the error of each output `[L]`."""
    marks, reference = np.concatenate(tally.marks), np.concatenate(whole.marks)
    changes, dropped = np.concatenate(tally.changes), np.concatenate(tally.dropped)
    classification, top = units is None, tally.codec.kind == "top"
    score, before = (
        (1 - marks.mean(), 1 - reference.mean())
        if classification
        else (np.sqrt(marks.mean()), np.sqrt(reference.mean()))
    )
    size = tally.codec.native(np.size(tally.by_output)).stride
    return CodecTrial(
        name=tally.codec.name,
        residual_bytes=size,
        memory_bytes=round(beside + size, 1),
        rows=len(marks),
        score=float(score),
        score_change=float(score - before),
        turned_wrong=int((marks > reference).sum()) if classification else None,
        turned_right=int((marks < reference).sum()) if classification else None,
        largest_change=float(changes.max()),
        mean_change=float(changes.mean()),
        largest_relative_change=None if units is None else float((tally.by_output / units).max()),
        dropped_mean=float(dropped.mean()) if top else None,
        dropped_p99=float(np.quantile(dropped, 0.99)) if top else None,
    )
