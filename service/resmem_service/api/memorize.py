"""`POST /memorize`: the request, checked, and the endpoint."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray
from starlette.types import Receive, Scope

from resmem_service.api.body import decode_object
from resmem_service.api.endpoint import Endpoint
from resmem_service.api.intake import Intake
from resmem_service.api.json_budget import check_json_size
from resmem_service.api.large_bodies import LargeBodies
from resmem_service.api.lifecycle import Lifecycle
from resmem_service.api.limits import RequestLimits
from resmem_service.api.model_metadata import ModelMetadata
from resmem_service.errors import InvalidInput
from resmem_service.excerpt import excerpt
from resmem_service.inference.rows import Rows
from resmem_service.memory import fitted
from resmem_service.memory.bounds import LARGEST_WEIGHT, LONGEST_NAME, SMALLEST_WEIGHT
from resmem_service.telemetry.metrics import Metrics

__all__ = ["LARGEST_WEIGHT", "LONGEST_NAME", "MemorizeEndpoint", "MemorizeRequest"]

T = TypeVar("T")

_KEYS: Final = ("inputs", "targets", "ids", "weights", "source")


@dataclass(frozen=True, slots=True)
class MemorizeRequest:
    """n rows to learn."""

    rows: Rows
    targets: NDArray[Any]
    """Class indexes int32 `[n]`, or float32 `[n, L]` for regression."""
    ids: list[str | None]
    weights: NDArray[np.float64]
    """`[n]`: importance, above 0."""
    source: str | None

    @classmethod
    def decode(cls, body: bytes, metadata: ModelMetadata, limits: RequestLimits) -> Self:
        """Checks a body against the contract and the model.

        Raises:
            MalformedBody, InvalidInput, TooManyRows: naming the field at fault.
        """
        check_json_size(body, metadata, limits)
        value = decode_object(body, _KEYS)
        for key in ("inputs", "targets"):
            if key not in value:
                raise InvalidInput("is missing", key)
        limits.check_rows(value["inputs"])
        rows = Rows.convert(value["inputs"], metadata.inputs)
        targets = _listed(value["targets"], "targets", len(rows))
        read = _numbers if metadata.task == "regression" else _classes
        return cls(
            rows=rows,
            targets=read(targets, metadata),
            ids=_ids(value.get("ids"), len(rows)),
            weights=_weights(value.get("weights"), len(rows), metadata.max_weight),
            source=_source(value.get("source")),
        )


class MemorizeEndpoint(Endpoint):
    """Rows become memories: durable before the answer, used by the very next prediction."""

    path = "/memorize"
    status = 201

    def __init__(
        self,
        lifecycle: Lifecycle,
        limits: RequestLimits,
        metrics: Metrics,
        large_bodies: LargeBodies,
    ) -> None:
        self._lifecycle = lifecycle
        self._intake = Intake(limits, metrics, large_bodies)

    async def answer(self, scope: Scope, receive: Receive) -> bytes:
        """The JSON body of the answer; whatever is wrong is raised."""
        backend = self._lifecycle.backend()
        request = await self._intake.request(scope, receive, backend, MemorizeRequest.decode)
        appended = await backend.predictor.memorize(
            request.rows,
            targets=request.targets,
            ids=request.ids,
            weights=request.weights,
            source=request.source,
        )
        return orjson.dumps(
            {
                "ids": appended.ids,
                "created": appended.created,
                "replaced": appended.replaced,
                "memory": {"size": appended.size, "revision": appended.revision},
            }
        )


def _listed(value: object, field: str, rows: int) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidInput(
            f"is {excerpt(value)}; it must be a list with one entry for each row", field
        )
    if len(value) != rows:
        raise InvalidInput(f"has {len(value)} entries for {rows} rows of inputs", field)
    return value


def _classes(targets: Sequence[Any], metadata: ModelMetadata) -> NDArray[np.int32]:
    def index(target: object) -> int | None:
        if isinstance(target, str):
            return metadata.class_indexes.get(target)
        return target if type(target) is int and 0 <= target < metadata.outputs else None

    indexes = _each(
        targets, index, "targets", f"no class: give its name, or its index below {metadata.outputs}"
    )
    return np.array(indexes, dtype=np.int32)


def _numbers(targets: Sequence[Any], metadata: ModelMetadata) -> NDArray[np.float32]:
    width = metadata.outputs

    def numbers(target: object) -> list[Any] | None:
        listed = [target] if width == 1 and not isinstance(target, list) else target
        if not isinstance(listed, list) or len(listed) != width:
            return None
        return listed if all(_is_finite(number) for number in listed) else None

    what = "no finite float32" if width == 1 else f"no list of {width} finite float32"
    return np.array(_each(targets, numbers, "targets", what), dtype=np.float32)


def _is_finite(value: object) -> bool:
    limit = float(np.finfo(np.float32).max)
    return type(value) in (int, float) and -limit <= value <= limit  # type: ignore[operator]


def _ids(value: object, rows: int) -> list[str | None]:
    if value is None:
        return [None] * rows
    ids = _listed(value, "ids", rows)
    for row, name in enumerate(ids):
        if name is None:
            continue
        if not _is_name(name):
            raise InvalidInput(
                f"row {row} has the id {excerpt(name)}; it must be a string of 1 to "
                f"{LONGEST_NAME} characters, or null for one of our making",
                "ids",
            )
    for name, times in Counter(ids).most_common(2):
        if name is not None and times > 1:
            raise InvalidInput(f"{name!r} is there {times} times", "ids")
    return ids


def _weights(value: object, rows: int, bound: float) -> NDArray[np.float64]:
    if value is None:
        return np.ones(rows)

    def weight(number: object) -> float | None:
        good = type(number) in (int, float) and SMALLEST_WEIGHT <= number <= LARGEST_WEIGHT  # type: ignore[operator]
        return number if good else None  # type: ignore[return-value]

    what = (
        f"no weight: it must be a number above 0, at least {SMALLEST_WEIGHT:.1e} and at most "
        f"{LARGEST_WEIGHT:.0e}"
    )
    weights = np.array(_each(_listed(value, "weights", rows), weight, "weights", what), np.float64)
    # As they are stored: a double beside the bound may be the bound there.
    heavy = np.flatnonzero(weights.astype(np.float32) > np.float32(bound))
    if len(heavy):
        raise InvalidInput(
            f"row {heavy[0]} weighs {weights[heavy[0]]:g}, more than one memory may: the bound is "
            f"{bound:g} (setting max_weight); `teaching_weight` of /model is enough for a lesson",
            "weights",
        )
    return weights


def _source(value: object) -> str | None:
    if value is None:
        return None
    if not _is_name(value):
        raise InvalidInput(
            f"is {excerpt(value)}; it must be a string of 1 to {LONGEST_NAME} characters", "source"
        )
    if value == fitted.SOURCE:
        raise InvalidInput(f"{value!r} is kept for the memories of the bundle", "source")
    return str(value)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= LONGEST_NAME


def _each(
    values: Sequence[Any], read: Callable[[object], T | None], field: str, what: str
) -> list[T]:
    """Reads every value; the first one that `read` returns None for is refused by its row."""
    result = []
    for row, value in enumerate(values):
        one = read(value)
        if one is None:
            raise InvalidInput(f"row {row} has {excerpt(value)}, which is {what}", field)
        result.append(one)
    return result
