"""Teaching live: mistakes corrected one at a time over HTTP, then a kill -9, then asked again."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.server import Server

__all__ = ["Teaching", "teach"]


@dataclass(frozen=True, slots=True)
class Teaching:
    """What became of the taught rows, and of all others."""

    weight: float
    """Importance of each lesson: the bundle's recommended teaching weight."""
    taught: int
    right_at_once: int
    """Of the taught, right in the very next answer."""
    nearest_at_once: int
    """Of the taught, those whose new memory is the first neighbour in that answer."""
    right_after_kill: int
    """Of the taught, right after all lessons, a kill -9 and a restart."""
    others: int
    others_right_before: int
    others_right_after: int

    def print(self) -> None:
        """Print what happened."""
        print(
            f"\ntaught live: {self.taught} mistakes, one /memorize each, weight {self.weight:g}\n"
            f"  right in the next answer       {self.right_at_once} of {self.taught}\n"
            f"  new memory is first neighbour  {self.nearest_at_once} of {self.taught}\n"
            f"  right after kill -9, restart   {self.right_after_kill} of {self.taught}\n"
            f"  the {self.others:,} rows not taught: {self.others_right_before:,} right before, "
            f"{self.others_right_after:,} after"
        )


def teach(
    server: Server,
    inputs: NDArray[np.uint8],
    labels: NDArray[np.int64],
    answered: NDArray[np.int64],
    count: int,
) -> Teaching:
    """Correct the first `count` wrong rows; `answered` [n] are the server's labels before that."""
    weight = float(server.model()["teaching_weight"])
    wrong = np.flatnonzero(answered != labels)[:count]
    others = np.setdiff1d(np.arange(len(labels)), wrong)
    at_once = first = 0
    for row in wrong:
        lesson, name = inputs[row : row + 1], f"lesson-{row}"
        server.memorize(lesson, [int(labels[row])], [name], weight)
        answer = server.predict(lesson)
        at_once += int(answer.resmem[0] == labels[row])
        first += int(answer.nearest[0] == name)
    server.kill()
    server.start()
    after = server.predict(inputs)
    return Teaching(
        weight=weight,
        taught=len(wrong),
        right_at_once=at_once,
        nearest_at_once=first,
        right_after_kill=int((after.resmem[wrong] == labels[wrong]).sum()),
        others=len(others),
        others_right_before=int((answered[others] == labels[others]).sum()),
        others_right_after=int((after.resmem[others] == labels[others]).sum()),
    )
