"""No request that could be answered is refused for its size in JSON; what no request is, is."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest
from resmem_service.api.json_budget import JsonBudget, check_json_size
from resmem_service.api.limits import RequestLimits
from resmem_service.api.model_metadata import ModelMetadata
from resmem_service.errors import InvalidInput, TooManyRows
from resmem_service.inference.tensor_spec import TensorSpec

LIMITS = RequestLimits(max_body_bytes=2**24, max_request_rows=1000)
IMAGE = TensorSpec("image", "float32", (8, 8))


def metadata(*inputs: TensorSpec, outputs: int = 10) -> ModelMetadata:
    return cast(ModelMetadata, SimpleNamespace(inputs=inputs, outputs=outputs))


def largest(*inputs: TensorSpec, outputs: int) -> dict[str, Any]:
    """A request of as many rows as are taken, with all that can come along."""
    rows = LIMITS.max_request_rows

    def nested(shape: tuple[int | None, ...]) -> Any:
        return [nested(shape[1:]) for _ in range(shape[0] or 1)] if shape else 0.5

    return {
        "inputs": {spec.name: [nested(spec.shape) for _ in range(rows)] for spec in inputs},
        "targets": [[0.5] * outputs for _ in range(rows)],
        "ids": ['[,{[,"' * 40 for _ in range(rows)],
        "weights": [2.0] * rows,
        "source": "[" * 256,
    }


@pytest.mark.parametrize(
    "inputs",
    [
        (IMAGE,),
        (TensorSpec("x", "float32", (64,)), TensorSpec("y", "int64", ())),
        (TensorSpec("x", "float32", (2, 1, 3, 1)),),
    ],
)
def test_the_largest_request_there_can_be(inputs: tuple[TensorSpec, ...]) -> None:
    body = orjson.dumps(largest(*inputs, outputs=3))
    assert len(body) > 2**17
    check_json_size(body, metadata(*inputs, outputs=3), LIMITS)


def test_a_dynamic_axis_may_be_of_any_length() -> None:
    tokens = TensorSpec("tokens", "int64", (None, 2))
    body = orjson.dumps({"inputs": [[[1, 2]] * 200_000]})
    check_json_size(body, metadata(tokens), LIMITS)


@pytest.mark.parametrize("piece", ["0,", "{},", "[],", '"",', '"ab",', "[0,0],", '{"a":0},'])
def test_more_than_any_request_holds(piece: str) -> None:
    body = b'{"inputs":[[' + piece.encode() * (2**20 // len(piece)) + b"0]]}"
    with pytest.raises(InvalidInput, match="max_request_rows") as caught:
        check_json_size(body, metadata(IMAGE), LIMITS)
    assert caught.value.field == "inputs"


def test_too_many_rows_are_called_so() -> None:
    row = orjson.dumps([[0] * 8] * 8)
    body = b'{"ids":[],"inputs":[' + b",".join([row] * 2000) + b"]}"
    with pytest.raises(TooManyRows, match="1000 rows") as caught:
        check_json_size(body, metadata(IMAGE), LIMITS)
    assert caught.value.field == "inputs"


def test_small_bodies_are_not_looked_at() -> None:
    check_json_size(b"[" * 2**17, metadata(IMAGE), LIMITS)


def test_the_budget_is_that_of_the_rows() -> None:
    budget = JsonBudget.of(metadata(IMAGE), LIMITS)
    doubled = JsonBudget.of(metadata(IMAGE), replace(LIMITS, max_request_rows=2000))
    assert doubled.values - budget.values == 1000 * (64 + 10 + 3)
    assert doubled.lists - budget.lists == 1000 * (1 + 8 + 1)
