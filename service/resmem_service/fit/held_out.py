"""Held-out rows: on some the parameters are chosen, on others the result is reported."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from resmem_service.errors import BundleError
from resmem_service.fit.base_pass import Represented

__all__ = ["HeldOutRows", "Sample", "leave_one_out", "memory_rows", "unseen_halves"]

_FEWEST: Final = 20
_MOST: Final = 5000
_PAIRS: Final = 300_000_000
"""Distances computed per embedding tried: what bounds the time on large training sets."""
_SCORES: Final = 2_000_000
_REPORT_SCORES: Final = 40_000_000
"""Held in memory for the report, however many rows are unseen."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Rows to be asked, and which memory each must not see."""

    rows: Represented
    own: NDArray[np.int64] | None
    """`[q]`: its own memory, -1 where it has none; None if no row has one."""

    def first(self, rows: int) -> "Sample":
        """At most so many of them."""
        own = None if self.own is None else self.own[:rows]
        return Sample(self.rows.part(slice(rows)), own)


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutRows:
    """Two samples without a row in common."""

    kind: Literal["leave-one-out", "unseen"]
    choose: Sample
    report: Sample


def memory_rows(
    rows: Represented, limit: int | None, random: np.random.Generator
) -> NDArray[np.int64]:
    """Which rows become memories, sorted: all, or at most `limit`, each class with its share."""
    if limit is None or limit >= len(rows):
        return np.arange(len(rows))
    order = random.permutation(len(rows))
    targets = rows.outputs.targets
    if targets.ndim == 1:
        # Ranks within the class as shares of it: the first `limit` by share keep the proportions.
        share = np.empty(len(rows))
        for label in np.unique(targets):
            own = order[targets[order] == label]
            share[own] = (np.arange(len(own)) + 0.5) / len(own)
        order = order[np.argsort(share[order], kind="stable")]
    return np.sort(order[:limit])


def leave_one_out(
    rows: Represented, memories: NDArray[np.int64], random: np.random.Generator
) -> HeldOutRows:
    """Sample training rows; `memories` says which of them, sorted, are memories.

    Raises:
        BundleError: fewer than 20 rows.
    """
    if len(rows) < _FEWEST:
        raise BundleError(
            f"{len(rows)} training rows are too few to choose parameters on: at least {_FEWEST}"
        )
    own = np.full(len(rows), -1)
    own[memories] = np.arange(len(memories))
    chosen = random.permutation(len(rows))
    size = min(sample_size(rows, len(memories)), len(rows) // 2)
    choose, report = np.sort(chosen[:size]), np.sort(chosen[size : 2 * size])
    return HeldOutRows(
        "leave-one-out",
        Sample(rows.part(choose), own[choose]),
        Sample(rows.part(report), own[report]),
    )


def unseen_halves(rows: Represented, memories: int, random: np.random.Generator) -> HeldOutRows:
    """Split rows that the base has not seen; of a wide output only some of the second half.

    Raises:
        BundleError: fewer than 20 rows.
    """
    if len(rows) < _FEWEST:
        raise BundleError(f"{len(rows)} unseen rows are too few: at least {_FEWEST}")
    chosen = random.permutation(len(rows))
    half = len(rows) // 2
    choose = np.sort(chosen[: min(half, sample_size(rows, memories))])
    most = max(_FEWEST, _REPORT_SCORES // rows.outputs.logits.shape[1])
    report = np.sort(chosen[half : half + most])
    return HeldOutRows("unseen", Sample(rows.part(choose), None), Sample(rows.part(report), None))


def sample_size(rows: Represented, memories: int) -> int:
    """How many rows to ask, so that the work stays bounded."""
    width = rows.outputs.logits.shape[1]
    return int(np.clip(min(_PAIRS // memories, _SCORES // width), 500, _MOST))
