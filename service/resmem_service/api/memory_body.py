"""A stored memory as JSON, for `GET /memories`."""

from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from resmem_service.api.model_metadata import ModelMetadata
from resmem_service.memory.journal.journal import MemoryRecord

__all__ = ["MemoryJson", "memory_json", "target_of"]

Target = str | np.float32 | NDArray[np.float32]
MemoryJson = dict[str, Target | float | None]
"""Encode it with `orjson.OPT_SERIALIZE_NUMPY`."""


def target_of(record: MemoryRecord, metadata: ModelMetadata) -> Target:
    """The label of a class, or the number or numbers of a regression.

    Numbers are float32 again, as they were kept, so that 2.65 is not 2.6500000953674316.
    """
    target = record.target
    if isinstance(target, int):
        return metadata.labels[target]
    numbers = np.array(target, dtype=np.float32)
    return numbers[0] if metadata.outputs == 1 else numbers


def memory_json(record: MemoryRecord, metadata: ModelMetadata) -> MemoryJson:
    """Makes the JSON object of a memory; `created` is null for those of the bundle."""
    created = None
    if record.created_ms is not None:
        stamp = datetime.fromtimestamp(record.created_ms / 1000, UTC)
        created = stamp.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "id": record.id,
        "source": record.source,
        "target": target_of(record, metadata),
        "weight": record.weight,
        "created": created,
    }
