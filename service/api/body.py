"""A request's body: read up to a limit, decoded once, its keys checked."""

import json
import math
from collections.abc import Mapping

import orjson
from starlette.types import Message, Receive, Scope

from service.api.content_coding import body_too_large, expand
from service.errors import InvalidInput, MalformedBody

__all__ = ["Disconnected", "decode_json", "decode_object", "quoted", "read_body"]


class Disconnected(Exception):
    """The client has gone; nobody waits for an answer."""


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole body, at most `limit` bytes, without its `Content-Encoding`.

    Raises:
        BodyTooLarge: `Content-Length` says so, the stream has passed the limit, or what comes out
            of it.
        UnsupportedEncoding, MalformedBody: the encoding is not known, or the body is not in it.
        Disconnected: the client went away before the end.
    """
    coding = None
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > limit:
            raise body_too_large(limit)
        if name == b"content-encoding":
            coding = value
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body: bytes = message.get("body", b"")  # the common case: one message, no copy
        if len(body) > limit:
            raise body_too_large(limit)
    else:
        body = await _joined(message, receive, limit)
    return body if coding is None else await expand(body, coding, limit)


async def _joined(message: Message, receive: Receive, limit: int) -> bytes:
    """A body in several messages, the first of which is here."""
    parts = bytearray()
    while True:
        if message["type"] == "http.disconnect":
            raise Disconnected
        parts += message.get("body", b"")
        if len(parts) > limit:
            raise body_too_large(limit)
        if not message.get("more_body"):
            return bytes(parts)
        message = await receive()


def quoted(*keys: str) -> dict[str, bytes]:
    """Keys as `decode_object` wants them: each with what it looks like in a body."""
    return {key: b'"%b"' % key.encode() for key in keys}


def decode_object(body: bytes, known: Mapping[str, bytes]) -> dict[str, object]:
    """The JSON object of a body, whose keys are all in `known`, each there once.

    Raises:
        MalformedBody: the body is not JSON.
        InvalidInput: it is no object, or has a key that is unknown or there twice; names the key.
    """
    value = decode_json(body)
    if not isinstance(value, dict):
        raise InvalidInput("the body must be a JSON object")
    suspicious = b"\\" in body and b"\\u" in body  # the first is far quicker to say no
    for key in value:
        literal = known.get(key)
        if literal is None:
            raise InvalidInput(f"unknown key; the known ones are: {', '.join(known)}", key)
        # A decoder keeps the last of two equal keys; seen once in the bytes, a key is there once.
        if body.count(literal) > 1:
            suspicious = True
    if suspicious:
        _refuse_twice(body)
    return value


def decode_json(body: bytes | memoryview) -> object:
    """The JSON value of a body.

    Raises:
        MalformedBody: the body is not JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return _not_finite(bytes(body), error)


def _not_finite(body: bytes, error: orjson.JSONDecodeError) -> object:
    """A body that is JSON but for NaN and infinity, which Python's own encoder writes.

    The check of the field that holds them tells a client more than a position does.
    """
    malformed = MalformedBody(f"the body is not JSON: {error}")
    if b"NaN" not in body and b"Infinity" not in body and "infinity" not in str(error):
        raise malformed
    seen: list[float] = []

    def number(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            seen.append(value)
        return value

    def whole(text: str) -> float:
        return int(text) if math.isfinite(number(text)) else math.inf

    try:
        value: object = json.loads(body, parse_int=whole, parse_float=number, parse_constant=number)
    except (ValueError, RecursionError):
        raise malformed from None
    if not seen:  # something else is wrong, which only the stricter decoder minds
        raise malformed
    return value


def _refuse_twice(body: bytes) -> None:
    def pairs(items: list[tuple[str, object]]) -> list[str]:
        return [key for key, _ in items]

    try:
        keys = json.loads(body, object_pairs_hook=pairs)
    except RecursionError:
        raise InvalidInput("the body is nested too deeply") from None
    for key in keys:
        if keys.count(key) > 1:
            raise InvalidInput("the key is there twice", key)
