"""Reading and decoding bodies, apart from the routes."""

import asyncio
import gzip
from collections.abc import Sequence

import pytest
from resmem_service.api.body import Disconnected, decode_object, read_body
from resmem_service.errors import BodyTooLarge, UnsupportedEncoding
from starlette.types import Message

KNOWN = ("inputs", "ids")


def read(
    messages: Sequence[Message],
    *,
    limit: int = 10,
    length: int | None = None,
    coding: str | None = None,
) -> bytes:
    remaining = iter(messages)

    async def receive() -> Message:
        return next(remaining)

    headers = [] if length is None else [(b"content-length", str(length).encode())]
    if coding is not None:
        headers.append((b"content-encoding", coding.encode()))
    return asyncio.run(read_body({"type": "http", "headers": headers}, receive, limit))


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
        asyncio.run(read_body({"type": "http", "headers": headers}, receive, 10))


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
