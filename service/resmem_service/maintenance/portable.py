"""A memory as it travels in a file, and the way from and to what the journal keeps.

`{"id", "inputs", "target", "weight", "source", "created_ms"}`, named and shaped as for
`POST /memorize`: inputs as nested lists (an object of them for a model with several), the target a
class name or numbers. An export adds `bundle`, which says where it is from, and, if asked to,
`embedding` and `residual`: the same bundle can take them without running its model.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from resmem_service.bundle.manifest import Manifest
from resmem_service.errors import InvalidInput
from resmem_service.inference.rows import Rows
from resmem_service.maintenance.bundle_identity import bundle_identity
from resmem_service.memory import fitted
from resmem_service.memory.bounds import LARGEST_WEIGHT, LONGEST_NAME, SMALLEST_WEIGHT, is_within
from resmem_service.memory.journal.journal import StoredMemory

__all__ = ["PortableFormat", "PortableMemory", "Vectors"]

_KEYS: Final = frozenset(
    ["id", "inputs", "target", "weight", "source", "created_ms", "bundle", "embedding", "residual"]
)
_LATEST_MS: Final = 2**53


@dataclass(frozen=True, slots=True)
class Vectors:
    """What the base model made of the inputs."""

    embedding: NDArray[np.float32]
    """`[d]`."""
    residual: NDArray[np.float32]
    """`[L]`."""


@dataclass(frozen=True, slots=True)
class PortableMemory:
    """One memory out of a file, checked against the bundle that is to take it."""

    id: str
    rows: Rows
    """One row."""
    target: int | NDArray[np.float32]
    """Class index, or `[L]` for regression."""
    weight: float
    source: str | None
    created_ms: int
    vectors: Vectors | None
    """None where the base model must run."""


class PortableFormat:
    """Writes and reads memories of one bundle.

    Args:
        manifest: of the bundle.
    """

    def __init__(self, manifest: Manifest, *, max_weight: float | None = None) -> None:
        """`max_weight` is the largest importance that `load` takes; by default the bundle's own."""
        self._manifest = manifest
        self._max_weight = manifest.max_weight if max_weight is None else max_weight
        self._bundle = bundle_identity(manifest)
        self._indexes = {name: index for index, name in enumerate(manifest.classes or ())}

    def dump(self, memory: StoredMemory, *, vectors: bool) -> dict[str, object]:
        """A memory as an object for a file; its arrays are numpy's.

        Raises:
            CorruptFile, InvalidInput: its input is not one of this bundle's model.
        """
        record, manifest = memory.record, self._manifest
        rows = Rows.decode([memory.input], manifest.inputs)
        arrays = {name: array[0] for name, array in rows.arrays.items()}
        value: dict[str, object] = {
            "id": record.id,
            "inputs": next(iter(arrays.values())) if len(arrays) == 1 else arrays,
            "target": self._dump_target(record.target),
            "weight": record.weight,
            "source": record.source,
            "created_ms": record.created_ms,
            "bundle": self._bundle,
        }
        if vectors:
            value["embedding"] = memory.embedding
            value["residual"] = memory.residual
        return value

    def load(self, value: object) -> PortableMemory:
        """An object of a file as a memory of this bundle.

        Raises:
            InvalidInput: naming the field at fault.
        """
        if not isinstance(value, Mapping):
            raise InvalidInput("is not an object with the fields of a memory")
        unknown = sorted(value.keys() - _KEYS)
        if unknown:
            raise InvalidInput(
                f"is not a field of a memory; those are: {', '.join(sorted(_KEYS))}", unknown[0]
            )
        for key in ("inputs", "target"):
            if value.get(key) is None:
                raise InvalidInput("is missing", key)
        rows = self._load_inputs(value["inputs"])
        target = self._load_target(value["target"])
        weight = _number(value.get("weight"), 1.0)
        if weight is None or not SMALLEST_WEIGHT <= weight <= LARGEST_WEIGHT:
            raise InvalidInput(
                f"must be a number above 0, at least {SMALLEST_WEIGHT:.1e} and at most "
                f"{LARGEST_WEIGHT:.0e}",
                "weight",
            )
        if not is_within(weight, self._max_weight):
            raise InvalidInput(
                f"is {weight:g}, more than one memory may weigh: the bound is {self._max_weight:g} "
                "(setting max_weight); give --max-weight if it is meant",
                "weight",
            )
        source = value.get("source")
        if source is not None and (not _is_name(source) or source == fitted.SOURCE):
            raise InvalidInput(
                f"must be 1 to {LONGEST_NAME} characters, and not {fitted.SOURCE!r}", "source"
            )
        id = value.get("id")
        if id is None:
            id = _made_id(rows, target, weight, source)
        if not _is_name(id):
            raise InvalidInput(f"must be a string of 1 to {LONGEST_NAME} characters", "id")
        return PortableMemory(
            id=self._own_id(id, value.get("bundle")),
            rows=rows,
            target=target,
            weight=weight,
            source=source,
            created_ms=_created(value.get("created_ms")),
            vectors=self._load_vectors(value),
        )

    def _dump_target(self, target: int | Sequence[float]) -> object:
        if isinstance(target, int):
            assert self._manifest.classes is not None
            return self._manifest.classes[target]
        numbers = np.array(target, np.float32)
        return numbers[0] if len(numbers) == 1 else numbers

    def _load_inputs(self, inputs: object) -> Rows:
        value: object = [inputs]
        if isinstance(inputs, Mapping):
            value = {name: [one] for name, one in inputs.items()}
        try:
            return Rows.convert(value, self._manifest.inputs)
        except InvalidInput as error:
            raise InvalidInput(error.message.removeprefix("row 0 "), error.field) from error

    def _load_target(self, target: object) -> int | NDArray[np.float32]:
        manifest = self._manifest
        if manifest.classes is not None:
            index = self._indexes.get(target) if isinstance(target, str) else target
            if type(index) is not int or not 0 <= index < manifest.outputs:
                raise InvalidInput(f"{target!r} is not a class, nor the index of one", "target")
            return index
        numbers = [target] if not isinstance(target, list) else target
        return _floats(numbers, manifest.outputs, "target")

    def _own_id(self, id: str, bundle: object) -> str:
        # Out of another bundle, `fit-N` would replace a fitted memory that it never was.
        foreign = bundle is not None and bundle != self._bundle
        if foreign and fitted.row_of_id(id, self._manifest.memories) is not None:
            return f"imported-{id}"
        return id

    def _load_vectors(self, value: Mapping[str, object]) -> Vectors | None:
        """None for those of another bundle: they mean nothing here."""
        if value.get("bundle") != self._bundle or value.get("embedding") is None:
            return None
        manifest = self._manifest
        vectors = Vectors(
            embedding=_floats(value.get("embedding"), manifest.embedding.dim, "embedding"),
            residual=_floats(value.get("residual"), manifest.outputs, "residual"),
        )
        try:
            manifest.memory_shape().codec.encode(vectors.residual[None])
        except ValueError as error:
            raise InvalidInput(str(error), "residual") from error
        return vectors


def _floats(value: object, count: int, field: str) -> NDArray[np.float32]:
    numbers = value if isinstance(value, list) else []
    if len(numbers) == count and all(type(number) in (int, float) for number in numbers):
        with np.errstate(over="ignore"):
            array = np.array(numbers, np.float32)
        if np.isfinite(array).all():
            return array
    raise InvalidInput(f"must be {count} finite float32", field)


def _number(value: object, default: float) -> float | None:
    if value is None:
        return default
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= LONGEST_NAME


def _created(value: Any) -> int:
    if value is None:
        return time.time_ns() // 1_000_000
    if type(value) is not int or not 0 <= value < _LATEST_MS:
        raise InvalidInput("must be a Unix time in milliseconds", "created_ms")
    return value


def _made_id(
    rows: Rows, target: int | NDArray[np.float32], weight: float, source: str | None
) -> str:
    """The same for the same content, so that a second import of a file adds nothing."""
    digest = hashlib.sha256(rows.encode()[0])
    digest.update(np.asarray(target).tobytes())
    digest.update(repr((weight, source)).encode())
    return digest.hexdigest()[:32]
