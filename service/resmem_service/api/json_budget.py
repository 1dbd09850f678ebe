"""How much JSON a request may hold, found out before it is parsed.

A parser makes 30 to 90 bytes of objects out of a byte such as those of `{},{},{}`: 64 MB of them,
or 60 KB in gzip, would take 2 GB. No request holds more values than `max_request_rows` rows of the
model have, so the commas, brackets and quotes of a large body are counted first, at several GB/s.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Final, Self

import orjson

from resmem_service.api import _json_scan
from resmem_service.api.json_grammar import check_grammar
from resmem_service.api.limits import RequestLimits
from resmem_service.api.model_metadata import ModelMetadata
from resmem_service.errors import InvalidInput, TooManyRows
from resmem_service.inference.tensor_spec import TensorSpec

__all__ = ["JsonBudget", "check_json_beginning", "check_json_size"]

_UNCOUNTED: Final = 2**17
"""Bytes of a body that cost little whatever they are."""
_SLACK: Final = 10_000
"""Values, lists, objects and strings beside the rows: options, and what protocols pass on."""


@dataclass(frozen=True, slots=True)
class JsonBudget:
    """The most that a request of a model can need."""

    values: int
    """Commas."""
    lists: int
    objects: int
    strings: int
    """Keys among them."""
    max_rows: int

    @classmethod
    def of(cls, metadata: ModelMetadata, limits: RequestLimits) -> Self:
        """The budget of requests to this model, whatever their route."""
        rows = limits.max_request_rows
        per_row = sum(_length(spec.shape, limits) for spec in metadata.inputs)
        # A target, an id and a weight beside the inputs; a target is a list or may be a string.
        return cls(
            values=rows * (per_row + metadata.outputs + 3) + _SLACK,
            lists=rows * (sum(_lists(spec, limits) for spec in metadata.inputs) + 1) + _SLACK,
            objects=_SLACK,
            strings=2 * rows + _SLACK,
            max_rows=rows,
        )

    def check(self, body: bytes | memoryview) -> None:
        """Refuses a body that holds more; raises as `check_json_size`."""
        excess = _json_scan.excess(body, self.values, self.lists, self.objects, self.strings)
        if excess is None:
            return
        key, rows = excess
        field = None if key is None else _decoded(key)
        if field == "inputs" and rows >= self.max_rows:
            raise TooManyRows(
                f"there are more than {self.max_rows} rows, the limit of max_request_rows", field
            )
        raise InvalidInput(
            f"holds more JSON than {self.max_rows} rows (max_request_rows) of this model can: over "
            f"{self.values} values, {self.lists} lists, {self.objects} objects or {self.strings} "
            "strings",
            field,
        )


def check_json_size(
    body: bytes | memoryview, metadata: ModelMetadata, limits: RequestLimits
) -> None:
    """Refuses a body that holds more JSON than any request to this model.

    Raises:
        TooManyRows: it does because it has too many rows.
        InvalidInput: it does otherwise; names the key of the request's object where it is over.
    """
    if len(body) > _UNCOUNTED:
        JsonBudget.of(metadata, limits).check(body)


def check_json_beginning(
    beginning: memoryview, metadata: ModelMetadata, limits: RequestLimits
) -> None:
    """Refuses a body whose beginning shows that no request to this model begins so.

    Raises:
        MalformedBody: it is not JSON.
        TooManyRows, InvalidInput: as `check_json_size` and `check_grammar`.
    """
    JsonBudget.of(metadata, limits).check(beginning)
    check_grammar(beginning, whole=False)


def _lists(spec: TensorSpec, limits: RequestLimits) -> int:
    """The most lists that a row is written with."""
    return sum(_length(spec.shape[:axis], limits) for axis in range(len(spec.shape)))


def _length(axes: Sequence[int | None], limits: RequestLimits) -> int:
    """The most elements along these axes; a dynamic one is bounded by the bytes of a body alone."""
    if None in axes:
        return limits.max_body_bytes
    return prod(axis or 1 for axis in axes)


def _decoded(key: bytes) -> str | None:
    try:
        return str(orjson.loads(key))
    except orjson.JSONDecodeError:
        return None
