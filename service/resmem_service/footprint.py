"""What predictions read of the disk, against the RAM that may hold it.

Sealed segments and the bundle's memories are mapped: as long as they fit in RAM they are read from
the disk once, and beyond it again and again. Nothing fails then, all merely becomes slow.
"""

import logging
from dataclasses import dataclass
from typing import Final

__all__ = ["Footprint"]

_UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes of the files that are mapped and shared, of the model in each worker, and of RAM."""

    mapped: int
    """The bundle's memories and the segments sealed from what was memorized online."""
    model: int
    """The base model, which every worker has for itself."""
    workers: int
    limit: int
    """What the process may use, see `resmem_service.resources.usable_memory_bytes`."""

    @property
    def needed(self) -> int:
        """What must be in RAM for a prediction not to wait for the disk."""
        return self.mapped + self.model * self.workers

    def warn(self) -> bool:
        """Says it in one line where the limit is too low, and returns whether it is."""
        if self.needed <= self.limit:
            return False
        _log.warning(
            "predictions need %s of files in RAM (memories %s, model %s in each of %d workers) "
            "and the limit is %s: they will wait for the disk. Give the process more memory, or "
            "keep fewer memories with capacity_bytes or capacity_rows",
            _size(self.needed), _size(self.mapped), _size(self.model), self.workers,
            _size(self.limit),
        )  # fmt: skip
        return True


def _size(nbytes: int) -> str:
    size, unit = float(nbytes), 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{nbytes} bytes" if unit == 0 else f"{size:.1f} {_UNITS[unit]}"
