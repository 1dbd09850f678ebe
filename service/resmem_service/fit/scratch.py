"""Tables that may outgrow the memory, in files: logits and residuals of every row of a fit.

200,000 rows of 4,000 classes are 3.2 GB. Such tables are written once, batch after batch, then
mapped read-only, so that the system may drop their pages and read them again.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkstemp
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Scratch"]


@dataclass(frozen=True, slots=True)
class Scratch:
    """A folder for the life of one fit, on the disk that the bundle will lie on."""

    folder: Path

    def keep(self, parts: Iterable[NDArray[Any]]) -> NDArray[Any]:
        """Write parts `[n_i, ...]`, at least one row in all, to a new file and map it read-only.

        Raises:
            OSError: the disk refused. Hence written, not stored through a mapping: there a full
                disk would kill the process.
        """
        rows, first = 0, None
        descriptor, name = mkstemp(dir=self.folder, suffix=".table")
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
            for part in parts:
                if first is None:
                    first = part
                file.write(np.ascontiguousarray(part).data)
                rows += len(part)
        if first is None or not rows:
            raise ValueError("a table needs rows")
        # A plain array: the subclass `memmap` would cling to every result computed from it.
        return np.asarray(np.memmap(name, first.dtype, "r", shape=(rows, *first.shape[1:])))
