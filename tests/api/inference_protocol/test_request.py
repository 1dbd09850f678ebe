"""Decoding a request: what is taken, and every way in which it may be wrong."""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from resmem_service.api.inference_protocol.request import InferRequest, RequestedOutput
from resmem_service.api.limits import RequestLimits
from resmem_service.api.model_metadata import ModelMetadata
from resmem_service.errors import InvalidInput, MalformedBody, ResmemError, TooManyRows
from resmem_service.inference.tensor_spec import TensorSpec

from tests.api.inference_protocol import wire

IMAGE = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
AGE = np.array([7, 8, 9], dtype=np.int64)
INPUTS: dict[str, NDArray[Any]] = {"image": IMAGE, "age": AGE}


def metadata(**changes: Any) -> ModelMetadata:
    facts: dict[str, Any] = {
        "name": "m",
        "version": "1",
        "task": "classification",
        "inputs": (TensorSpec("image", "float32", (2, None)), TensorSpec("age", "int64", ())),
        "classes": None,
        "outputs": 3,
        "provider": "cpu",
        "embedding": {},
        "parameters": {},
        "teaching_weight": 1.0,
        "max_weight": 4.0,
        "scores": [],
        "checksums": {},
        "memory_limits": {},
    }
    return ModelMetadata(**{**facts, **changes})


def decode(
    body: bytes | Mapping[str, Any],
    headers: Mapping[str, str] | None = None,
    *,
    model: ModelMetadata | None = None,
    max_rows: int = 100,
) -> InferRequest:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    length = (headers or {}).get(wire.HEADER_LENGTH)
    limits = RequestLimits(max_request_rows=max_rows)
    return InferRequest.decode(
        raw,
        model or metadata(),
        limits,
        header_length=None if length is None else length.encode(),
    )


def same(request: InferRequest, inputs: Mapping[str, NDArray[Any]]) -> None:
    assert list(request.rows.arrays) == ["image", "age"]
    for name, array in inputs.items():
        found = request.rows.arrays[name]
        assert found.dtype == array.dtype
        assert found.flags.aligned
        assert np.array_equal(found, array)


@pytest.mark.parametrize("pad", range(8))
def test_binary(pad: int) -> None:
    """Wherever the tensors come to lie in the body, and in whatever order."""
    same(decode(*wire.binary_body(INPUTS, pad=pad)), INPUTS)
    same(decode(*wire.binary_body({"age": AGE, "image": IMAGE}, pad=pad)), INPUTS)


def test_what_lies_well_is_not_copied() -> None:
    body, headers = wire.binary_body({"image": IMAGE, "age": AGE})
    start = np.frombuffer(body, np.uint8).ctypes.data
    pad = -(start + int(headers[wire.HEADER_LENGTH])) % 8
    body, headers = wire.binary_body(INPUTS, pad=pad)
    if np.frombuffer(body, np.uint8).ctypes.data % 8 != start % 8:
        pytest.skip("the allocator has put it elsewhere this time")
    image = decode(body, headers).rows.arrays["image"]
    assert np.shares_memory(image, np.frombuffer(body, np.uint8))


def test_json_flat_and_nested() -> None:
    same(decode(wire.json_body(INPUTS)), INPUTS)
    nested = [wire.tensor(name, each, data=each.tolist()) for name, each in INPUTS.items()]
    same(decode({"inputs": nested}), INPUTS)


def test_one_here_and_one_there() -> None:
    value = {
        "inputs": [
            wire.tensor("image", IMAGE, data=IMAGE.tolist()),
            wire.tensor("age", AGE, parameters={"binary_data_size": 24}),
        ]
    }
    same(decode(*wire.with_binary_part(value, AGE.tobytes())), INPUTS)


def test_a_header_length_of_the_whole_body() -> None:
    raw = json.dumps(wire.json_body(INPUTS)).encode()
    same(decode(raw, {wire.HEADER_LENGTH: str(len(raw))}), INPUTS)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "float16", "float64"])
def test_other_numbers_that_the_input_can_hold(dtype: str) -> None:
    sent = {"image": IMAGE.astype(dtype), "age": AGE.astype(dtype)}
    same(decode(*wire.binary_body(sent)), INPUTS)
    same(decode(wire.json_body(sent)), INPUTS)


def test_booleans() -> None:
    flags = np.array([[True], [False]])
    model = metadata(inputs=(TensorSpec("flag", "bool", (1,)),))
    inputs = {"flag": flags}
    for request in (
        decode(*wire.binary_body(inputs), model=model),
        decode(wire.json_body(inputs), model=model),
    ):
        found = request.rows.arrays["flag"]
        assert found.dtype == np.bool_
        assert np.array_equal(found, flags)


def test_null_is_nothing() -> None:
    """Clients that write their whole model out send it for what they leave out."""
    tensors = [{**entry, "parameters": None} for entry in wire.json_body(INPUTS)["inputs"]]
    request = decode({"id": None, "parameters": None, "outputs": None, "inputs": tensors})
    same(request, INPUTS)
    assert request.id is None


def test_parameters_for_others_are_left_alone() -> None:
    request = decode(
        wire.json_body(
            INPUTS, parameters={"priority": 3, "timeout": 5, "sequence_id": "x", "own": True}
        )
    )
    same(request, INPUTS)


def outputs(value: Any, **parameters: Any) -> list[RequestedOutput]:
    return list(decode(wire.json_body(INPUTS, outputs=value, parameters=parameters)).outputs)


def test_outputs() -> None:
    everything = ["scores", "base", "correction", "label"]
    assert outputs(None) == outputs([]) == [RequestedOutput(name, False) for name in everything]
    assert outputs(None, binary_data_output=True) == [
        RequestedOutput(name, True) for name in everything
    ]
    assert outputs([{"name": "label"}, {"name": "base", "parameters": {"binary_data": True}}]) == [
        RequestedOutput("label", False),
        RequestedOutput("base", True),
    ]
    assert outputs(
        [{"name": "label", "parameters": {"binary_data": False}}, {"name": "base"}],
        binary_data_output=True,
    ) == [RequestedOutput("label", False), RequestedOutput("base", True)]
    assert outputs([{"name": "base", "parameters": {"classification": 2}}]) == [
        RequestedOutput("base", False, 2)
    ]


def test_outputs_of_a_regression() -> None:
    request = decode(wire.json_body(INPUTS), model=metadata(task="regression"))
    assert [output.name for output in request.outputs] == ["value", "base", "correction"]


def test_the_id() -> None:
    assert decode(wire.json_body(INPUTS, id="a-1")).id == "a-1"
    assert decode(wire.json_body(INPUTS)).id is None


def image(**changes: Any) -> dict[str, Any]:
    """A request in JSON whose first tensor differs from a good one; None leaves a key out."""
    body = wire.json_body(INPUTS)
    first = {**body["inputs"][0], **changes}
    body["inputs"][0] = {key: value for key, value in first.items() if value is not None}
    return body


def with_input(**changes: Any) -> dict[str, Any]:
    return {**wire.json_body(INPUTS), **changes}


SHARED = {"shared_memory_region": "r", "shared_memory_byte_size": 48}

BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"inputs": []}, "inputs", "list of tensors"),
    ({}, "inputs", "list of tensors"),
    ({"inputs": {}}, "inputs", "list of tensors"),
    ({"inputs": [1]}, "inputs", "an object"),
    ({"inputs": [{"shape": [1]}]}, "inputs", "a name"),
    (with_input(output=[]), "output", "unknown key"),
    (with_input(id=7), "id", "a string"),
    (with_input(parameters=[]), "parameters", "an object"),
    (with_input(parameters={"binary_data_output": 1}), "parameters", "true or false"),
    (with_input(parameters=SHARED), "parameters", "shared memory"),
    (image(name="picture"), "inputs.picture", "no input 'picture'"),
    (image(dtype="FP32"), "inputs.image.dtype", "unknown key"),
    (image(datatype=None), "inputs.image", "the datatype null"),
    (image(datatype="float32"), "inputs.image", "one of: BOOL"),
    (image(datatype="BYTES"), "inputs.image", "the datatype 'BYTES'"),
    (image(datatype="BF16"), "inputs.image", "the datatype 'BF16'"),
    (image(datatype=["FP32"]), "inputs.image", "the datatype ['FP32']"),
    (image(datatype="BOOL"), "inputs.image", "holds a number; each row must be bool"),
    (image(datatype="UINT8", data=[*range(11), -1]), "inputs.image", "row 2 holds -1"),
    (image(datatype="INT32", data=[*range(11), 0.5]), "inputs.image", "row 2 holds the fraction"),
    (image(shape=None), "inputs.image", "must have a shape"),
    (image(shape=[]), "inputs.image", "must have a shape"),
    (image(shape=12), "inputs.image", "must have a shape"),
    (image(shape=[12] + [1] * 99), "inputs.image", "at most 32 axes"),
    (image(shape=[12] + [1] * 31), "inputs.image", "each row must be float32 of shape [2, any]"),
    (image(shape=[3, 4.0]), "inputs.image", "each axis"),
    (image(shape=[3, -1]), "inputs.image", "each axis"),
    (image(shape=[0, 2, 2], data=[]), "inputs.image", "each axis"),
    (image(shape=[3, True, 4]), "inputs.image", "each axis"),
    (image(shape=[3, 4]), "inputs.image", "has shape [3, 4]; each row must be float32"),
    (image(shape=[3, 1, 4]), "inputs.image", "has shape [3, 1, 4]; each row must be float32"),
    (image(shape=[6, 2, 1]), "inputs.age", "has 3 rows where input 'image' has 6"),
    (image(shape=[3, 2, 3]), "inputs.image", "has 12 elements of data; shape [3, 2, 3] takes 18"),
    (image(shape=[99, 2**40, 2**40]), "inputs.image", "has 12 elements of data"),
    (image(shape=[4, 2, 2], data=IMAGE.tolist()), "inputs.image", "has 3 rows of data"),
    (image(data=[[[0, 1], [2, 3]], [[4, 5], [6]], [[8, 9], [10, 11]]]), "inputs.image", "ragged"),
    (image(data=[*range(11), "x"]), "inputs.image", "row 2 holds a string"),
    (image(data=[*range(11), None]), "inputs.image", "row 2 holds null"),
    (image(data=[*range(11), True]), "inputs.image", "row 2 holds a boolean"),
    (image(data=[*range(7), float("nan"), *range(4)]), "inputs.image", "row 1 holds NaN"),
    (image(data=[*range(11), float("-inf")]), "inputs.image", "row 2 holds infinity"),
    (image(data=[*range(11), 1e39]), "inputs.image", "row 2 holds 1e+39"),
    (image(data={}), "inputs.image", "has no data"),
    (image(data=None), "inputs.image", "has no data"),
    (image(parameters=7), "inputs.image", "an object"),
    (image(parameters=SHARED), "inputs.image", "shared memory"),
    (image(parameters={"binary_data_size": 48}), "inputs.image", "both here and"),
    ({"inputs": wire.json_body(INPUTS)["inputs"][:1]}, "inputs.age", "'age' is missing"),
    ({"inputs": wire.json_body(INPUTS)["inputs"] * 2}, "inputs", "twice"),
    (with_input(outputs={}), "outputs", "a list"),
    (with_input(outputs=["scores"]), "outputs", "an object"),
    (with_input(outputs=[{"name": "value"}]), "outputs", "no output 'value'; it has: scores"),
    (with_input(outputs=[{"name": ["base"]}]), "outputs", "no output ['base']"),
    (with_input(outputs=[{}]), "outputs", "no output null"),
    (with_input(outputs=[{"name": "base"}] * 2), "outputs", "twice"),
    (with_input(outputs=[{"name": "base", "parameter": {}}]), "outputs.base.parameter", "unknown"),
    (
        with_input(outputs=[{"name": "base", "parameters": {"binary_data": "yes"}}]),
        "outputs.base",
        "true or false",
    ),
    (with_input(outputs=[{"name": "base", "parameters": SHARED}]), "outputs.base", "shared memory"),
    (
        with_input(outputs=[{"name": "base", "parameters": {"classification": -1}}]),
        "outputs.base",
        "whole number",
    ),
    (
        with_input(outputs=[{"name": "label", "parameters": {"classification": 1}}]),
        "outputs.label",
        "no classes",
    ),
]


@pytest.mark.parametrize(("body", "field", "says"), BAD)
def test_json_that_is_refused(body: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode(body)
    assert caught.value.field == field
    assert says in caught.value.message


@pytest.mark.parametrize("body", [b"[]", b"7", b"null", b'"inputs"'])
def test_no_object(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        decode(body)


@pytest.mark.parametrize("body", [b"", b"{", b'{"inputs": [}', b"\xff\xfe"])
def test_no_json(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        decode(body)


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ('"id": "a", "id": "b"', "id"),
        (r'"id": "a", "\u0069d": "b"', "id"),
        ('"inputs": []', "inputs"),
        ('"outputs": [{"name": "label", "name": "scores"}]', "outputs"),
        ('"parameters": {"a": 1, "b": {"c": 2, "c": 3}}', "parameters"),
    ],
)
def test_no_key_is_there_twice(more: str, field: str) -> None:
    body, headers = wire.binary_body(INPUTS)
    end = int(headers[wire.HEADER_LENGTH])
    head = body[: end - 1] + f", {more}}}".encode()
    with pytest.raises(InvalidInput, match="twice") as caught:
        decode(head + body[end:], {wire.HEADER_LENGTH: str(len(head))})
    assert caught.value.field == field


def test_colons_elsewhere_are_no_keys() -> None:
    parameters = {"a": ":", "b": {"a": ":"}}
    body, headers = wire.binary_body(INPUTS, id="urn:x", parameters=parameters)
    same(decode(body, headers), INPUTS)


@pytest.mark.parametrize("length", ["0", "-1", "+5", "1e2", "x", "", "9" * 30, "²", "100000"])
def test_a_header_length_that_is_none(length: str) -> None:
    body, _ = wire.binary_body(INPUTS)
    with pytest.raises(MalformedBody) as caught:
        InferRequest.decode(body, metadata(), RequestLimits(), header_length=length.encode())
    assert caught.value.field == "Inference-Header-Content-Length"


@pytest.mark.parametrize("away", [-1, 1])
def test_a_header_length_that_is_off_by_one(away: int) -> None:
    body, headers = wire.binary_body(INPUTS)
    length = str(int(headers[wire.HEADER_LENGTH]) + away)
    with pytest.raises((MalformedBody, InvalidInput)):
        decode(body, {wire.HEADER_LENGTH: length})


@pytest.mark.parametrize("part", [b"", b"x" * 71, b"x" * 73])
def test_a_binary_part_of_the_wrong_length(part: bytes) -> None:
    body, headers = wire.binary_body(INPUTS)
    with pytest.raises(InvalidInput) as caught:
        decode(body[:-72] + part, headers)
    assert f"72 bytes in the binary part, which is {len(part)} long" in caught.value.message


@pytest.mark.parametrize("size", [0, 47, 49, -48, 48.0, "48", True, 2**70])
def test_a_binary_size_that_disagrees_with_the_shape(size: Any) -> None:
    tensors = [
        wire.tensor("image", IMAGE, parameters={"binary_data_size": size}),
        wire.tensor("age", AGE, parameters={"binary_data_size": 24}),
    ]
    body = wire.with_binary_part({"inputs": tensors}, IMAGE.tobytes() + AGE.tobytes())
    with pytest.raises(InvalidInput) as caught:
        decode(*body)
    assert caught.value.field == "inputs.image"
    assert "takes 48 bytes" in caught.value.message


def test_binary_sizes_without_a_binary_part() -> None:
    tensors = [
        wire.tensor(name, each, parameters={"binary_data_size": each.nbytes})
        for name, each in INPUTS.items()
    ]
    with pytest.raises(InvalidInput) as caught:
        decode({"inputs": tensors})
    assert "which is 0 long" in caught.value.message


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.array([[[1, 2], [3, np.nan]]], np.float32), "row 0 holds NaN"),
        (np.array([[[1, 2], [3, np.inf]]], np.float64), "row 0 holds infinity"),
        (np.full((1, 2, 2), 1e39), "row 0 holds 1e+39"),
        (np.zeros((1, 2, 2), np.bool_), "row 0 holds a boolean"),
        (np.zeros((1, 4), np.float32), "has shape [1, 4]"),
        (np.zeros((1, 2, 2, 1), np.float32), "has shape [1, 2, 2, 1]"),
    ],
)
def test_binary_tensors_that_do_not_fit(array: NDArray[Any], says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode(*wire.binary_body({"image": array, "age": AGE[:1]}))
    assert caught.value.field == "inputs.image"
    assert says in caught.value.message


def test_a_boolean_is_0_or_1() -> None:
    model = metadata(inputs=(TensorSpec("flag", "bool", (2,)),))
    body, headers = wire.binary_body({"flag": np.array([[True, False]])})
    with pytest.raises(InvalidInput) as caught:
        decode(body[:-1] + b"\x02", headers, model=model)
    assert caught.value.field == "inputs.flag"


def test_a_batch_that_is_all_of_the_shape() -> None:
    body, headers = wire.binary_body({"image": IMAGE, "age": AGE.reshape(3, 1)})
    with pytest.raises(InvalidInput) as caught:
        decode(body, headers)
    assert caught.value.field == "inputs.age"


def test_too_many_rows_are_refused_before_they_are_looked_at() -> None:
    """By what the shape says: neither the elements nor their number matter yet."""
    same(decode(*wire.binary_body(INPUTS), max_rows=3), INPUTS)
    with pytest.raises(TooManyRows):
        decode(*wire.binary_body(INPUTS), max_rows=2)
    with pytest.raises(TooManyRows):
        decode(image(shape=[101, 2, 2], data=["nonsense"]))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
_PLACES = (
    *(("id",), ("parameters",), ("outputs",), ("inputs",), ("inputs", 0), ("outputs", 0)),
    *(("inputs", 0, key) for key in ("name", "shape", "datatype", "parameters", "data")),
    *(("outputs", 0, key) for key in ("name", "parameters")),
    ("inputs", 0, "parameters", "binary_data_size"),
    ("outputs", 0, "parameters", "classification"),
    ("outputs", 0, "parameters", "binary_data"),
)


@given(place=st.sampled_from(_PLACES), value=_JSON, length=st.integers(-1, 700), cut=st.integers(0))
def test_nonsense_is_refused_and_nothing_else_happens(
    place: tuple[str | int, ...], value: object, length: int, cut: int
) -> None:
    """One value of a good request is replaced; or the header is wrong, or the end is missing."""
    request: Any = {
        "id": "a",
        "parameters": {},
        "inputs": [
            wire.tensor("image", IMAGE, parameters={"binary_data_size": 48}),
            wire.tensor("age", AGE, data=AGE.tolist()),
        ],
        "outputs": [{"name": "base", "parameters": {"binary_data": True, "classification": 1}}],
    }
    body, headers = wire.with_binary_part(request, IMAGE.tobytes())
    same(decode(body, headers), INPUTS)
    *path, last = place
    node = request
    for key in path:
        node = node[key]
    node[last] = value
    bodies = [
        wire.with_binary_part(request, IMAGE.tobytes()),
        (body, {wire.HEADER_LENGTH: str(length)}),
        (body[: cut % len(body)], headers),
    ]
    for each in bodies:
        with suppress(ResmemError):
            decode(*each)
