"""Reading and decoding bodies, apart from the routes."""

import asyncio
import gzip
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import cast

import pytest
from resmem_service.api.body import BODY_CHARGE, Disconnected, decode_object, read_body
from resmem_service.api.json_budget import check_json_beginning
from resmem_service.api.large_bodies import LargeBodies
from resmem_service.api.limits import RequestLimits
from resmem_service.api.model_metadata import ModelMetadata
from resmem_service.errors import (
    BodyTooLarge,
    InvalidInput,
    MalformedBody,
    TooManyRows,
    UnsupportedEncoding,
)
from resmem_service.inference.tensor_spec import TensorSpec
from starlette.types import Message

KNOWN = ("inputs", "ids")


def read(
    messages: Sequence[Message],
    *,
    limit: int = 10,
    length: int | None = None,
    coding: str | None = None,
    check: Callable[[memoryview], None] | None = None,
) -> bytes:
    remaining = iter(messages)

    async def receive() -> Message:
        return next(remaining)

    headers = [] if length is None else [(b"content-length", str(length).encode())]
    if coding is not None:
        headers.append((b"content-encoding", coding.encode()))
    scope = {"type": "http", "headers": headers}
    return asyncio.run(read_body(scope, receive, limit, LargeBodies(), check))


def part(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


def test_one_message_and_several() -> None:
    assert read([part(b"0123456789", more=False)]) == b"0123456789"
    assert read([part(b"01"), part(b""), part(b"23", more=False)]) == b"0123"
    assert read([{"type": "http.request"}]) == b""


def test_nothing_is_read_of_a_body_said_to_be_too_large() -> None:
    with pytest.raises(BodyTooLarge):
        read([], length=11)


def test_reading_stops_at_the_limit() -> None:
    """Whatever the length is said to be; the rest of the stream is never asked for."""
    with pytest.raises(BodyTooLarge):
        read([part(b"012345"), part(b"67890")], length=3)
    with pytest.raises(BodyTooLarge):
        read([part(b"01234567890", more=False)])


def test_a_compressed_body() -> None:
    """In one piece and in several; the limit is that of both sides."""
    packed = gzip.compress(b"0" * 40)
    for messages in ([part(packed, more=False)], [part(packed[:9]), part(packed[9:], more=False)]):
        assert read(messages, limit=40, coding="gzip") == b"0" * 40
        with pytest.raises(BodyTooLarge):
            read(messages, limit=39, coding="gzip")
        with pytest.raises(BodyTooLarge):
            read(messages, limit=len(packed) - 1, coding="gzip")


def test_a_body_is_in_one_coding() -> None:
    """Several lines of the header are a list, as `gzip, gzip` is."""
    headers = [(b"content-encoding", b"gzip"), (b"content-encoding", b"identity")]

    async def receive() -> Message:
        return part(gzip.compress(b"{}"), more=False)

    with pytest.raises(UnsupportedEncoding, match="more than one"):
        asyncio.run(read_body({"type": "http", "headers": headers}, receive, 10, LargeBodies()))


def test_a_client_that_goes_away() -> None:
    with pytest.raises(Disconnected):
        read([part(b"0"), {"type": "http.disconnect"}])
    with pytest.raises(Disconnected):
        read([{"type": "http.disconnect"}])


def test_values_come_as_they_are() -> None:
    assert decode_object(b'{"inputs": [1, 2.5, "x", null], "ids": {}}', KNOWN) == {
        "inputs": [1, 2.5, "x", None],
        "ids": {},
    }


def test_whole_numbers_stay_whole_beside_nan() -> None:
    decoded = decode_object(b'{"inputs": [NaN, 1e999], "ids": 7}', KNOWN)
    assert isinstance(decoded["ids"], int)


@pytest.mark.parametrize("piece", [b"0,", b"{},", b'"a",', b"x"])
def test_a_compressed_body_is_expanded_no_further_than_it_is_right(piece: bytes) -> None:
    """60 KB for 58 MB: what is wrong with them is seen in their first megabytes."""
    size = 58 * 2**20
    packed = gzip.compress(b'{"inputs":[' + piece * (size // len(piece)))
    made: list[int] = []
    scope = {
        "type": "http",
        "headers": [(b"content-encoding", b"gzip")],
        "extensions": {BODY_CHARGE: made.append},
    }
    metadata = cast(
        ModelMetadata, SimpleNamespace(inputs=[TensorSpec("x", "float32", (64,))], outputs=10)
    )
    check = partial(check_json_beginning, metadata=metadata, limits=RequestLimits())

    async def receive() -> Message:
        return part(packed, more=False)

    with pytest.raises((InvalidInput, TooManyRows, MalformedBody)):
        asyncio.run(read_body(scope, receive, 64 * 2**20, LargeBodies(), check))
    assert sum(made) < size // 20


def test_a_compressed_body_that_is_right_is_checked_in_linear_time() -> None:
    body = b'{"inputs":[' + b"0.125," * 2**20 + b"0]}"
    looked_at: list[int] = []
    messages = [part(gzip.compress(body), more=False)]
    found = read(
        messages, limit=2**23, coding="gzip", check=lambda begun: looked_at.append(len(begun))
    )
    assert found == body
    assert 0 < sum(looked_at) <= 2 * len(body)
