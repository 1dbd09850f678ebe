"""Whether a segment finds its own rows: its self-recall.

The search for the embedding of a memory must find that memory. The graph of hnswlib makes no such
promise: rows may be linked in such a way that nothing leads to some of them. So every segment is
asked for a sample of its rows before it is published, and what it does not find becomes an entry:
each walk begins there too, beside the entry point of the graph.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from resmem_service.memory.search import _kernel

__all__ = ["LEAST_RECALL", "POOR_RECALL", "SelfRecall", "most_entries"]

LEAST_RECALL: Final = 0.99
"""A segment with less is not published."""
POOR_RECALL: Final = 0.98
"""A segment in use with less is worth building anew: far enough below the other bound for what
another sample says to differ."""

_SAMPLE: Final = 1000
_USUAL_SHARE: Final = 0.003
"""Of a sample, missed in a sound graph: 0.001 of 60,000 embeddings of a network at ef = 53."""
_CHUNK: Final = 8192
_SCANNED_BYTES: Final = 4 << 20
"""As large as a growing segment, which is scanned by every search."""
_SCANNED_SHARE: Final = 1 / 32


@dataclass(frozen=True, slots=True)
class SelfRecall:
    """How many elements of a graph were asked for, and which of them were not found.

    Rows with equal embeddings are one element; one of which no row lives is passed over.
    """

    asked: int
    missed: NDArray[np.uint32]

    @property
    def share(self) -> float:
        """What was found of what was asked for; 1 where nothing was."""
        return 1 - len(self.missed) / self.asked if self.asked else 1.0

    @classmethod
    def of_sample(
        cls, segment: _kernel.SealedSegment, ef: int, *, sample: int = _SAMPLE, seed: int = 0
    ) -> "SelfRecall":
        """Asks for elements from all over the graph, all of them where it has no more.

        Raises:
            CorruptGraph: a file of the segment is damaged.
        """
        count = segment.elements
        some: NDArray[np.floating] | NDArray[np.intp] = np.arange(count)
        if count > sample:
            # One of each stretch: elements that are near to each other lie side by side.
            places = np.random.default_rng(seed).random(sample)
            some = np.unique(np.floor((np.arange(sample) + places) * (count / sample)))
        return cls._of(segment, some.astype(np.uint32), ef)

    @classmethod
    def thorough(cls, segment: _kernel.SealedSegment, ef: int) -> "SelfRecall":
        """Asks for a sample, and for every element where that misses more than usual.

        Raises:
            CorruptGraph: a file of the segment is damaged.
        """
        found = cls.of_sample(segment, ef)
        if found.asked == segment.elements or 1 - found.share <= _USUAL_SHARE:
            return found
        parts = [
            cls._of(
                segment,
                np.arange(start, min(start + _CHUNK, segment.elements), dtype=np.uint32),
                ef,
            )
            for start in range(0, segment.elements, _CHUNK)
        ]
        return cls(
            sum(part.asked for part in parts), np.concatenate([part.missed for part in parts])
        )

    def again(self, segment: _kernel.SealedSegment, ef: int) -> "SelfRecall":
        """Of a segment that differs in its entries alone: what was missed is asked again."""
        return SelfRecall(self.asked, self._of(segment, self.missed, ef).missed)

    @classmethod
    def _of(
        cls, segment: _kernel.SealedSegment, elements: NDArray[np.uint32], ef: int
    ) -> "SelfRecall":
        answers = segment.finds(elements, ef)
        return cls(int((answers >= 0).sum()), elements[answers == 0])


def most_entries(elements: int, dim: int) -> int:
    """How many entries a graph may have: every search measures its distance to each of them."""
    return int(max(_SCANNED_BYTES // (4 * dim), _SCANNED_SHARE * elements))
