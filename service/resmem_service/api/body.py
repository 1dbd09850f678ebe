"""A request's body: read up to a limit, decoded once, its keys checked."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from typing import Any, Final

import orjson
from starlette.types import Message, Receive, Scope

from resmem_service.api import _json_scan
from resmem_service.api.content_coding import body_too_large, expand
from resmem_service.api.json_grammar import CHECKED_BYTES, DEEPEST, check_grammar, key_as_sent
from resmem_service.api.large_bodies import LargeBodies
from resmem_service.errors import InvalidInput, MalformedBody, UnsupportedEncoding
from resmem_service.excerpt import excerpt

__all__ = [
    "BODY_CHARGE",
    "Disconnected",
    "decode_json",
    "decode_object",
    "read_body",
    "refuse_repeated_keys",
]


BODY_CHARGE: Final = "resmem.body_charge"
"""An ASGI extension that our server offers: `(amount) -> None` counts bytes, or fewer bytes, that
the body takes once it is decoded, and raises `Overloaded` where there is no memory for them. What
arrives the server has counted itself, and it frees all of it when the app returns."""


_NO_EXTENSIONS: Final[Mapping[str, Any]] = {}

_NOT_UTF8: Final = "str is not valid UTF-8"
"""How the decoder begins to say so; it goes on about surrogates, whatever the bytes are."""
_MOST_NOT_FINITE: Final = 64
"""Values that are no JSON and yet reach the check of their field; the others are null by then."""


class Disconnected(Exception):
    """The client has disconnected, so that nobody waits for an answer."""


async def read_body(
    scope: Scope,
    receive: Receive,
    limit: int,
    large_bodies: LargeBodies,
    check: Callable[[memoryview], None] | None = None,
) -> bytes:
    """Reads the whole body, at most `limit` bytes, and undoes its `Content-Encoding`.

    What is compressed and large is expanded where `large_bodies` runs things, and only for as long
    as `check` finds nothing wrong with its beginning; see `expand`.

    Raises:
        BodyTooLarge: `Content-Length` says so, the stream has passed the limit, or what comes out
            of it.
        UnsupportedEncoding, MalformedBody: the encoding is not known, or the body is not in it.
        Overloaded: there is no memory for what comes out of it.
        Disconnected: the client went away before the end. And whatever `check` raises.
    """
    coding = None
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > limit:
            raise body_too_large(limit)
        if name == b"content-encoding":
            if coding is not None:
                raise UnsupportedEncoding(
                    "the request has more than one Content-Encoding; send the body in one coding"
                )
            coding = value
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body: bytes = message.get("body", b"")  # the common case: one message, no copy
        if len(body) > limit:
            raise body_too_large(limit)
    else:
        body = await _joined(message, receive, limit)
    if coding is None:
        return body
    charge = scope.get("extensions", _NO_EXTENSIONS).get(BODY_CHARGE, _count_nothing)
    return await expand(body, coding, limit, charge, large_bodies, check)


async def _joined(message: Message, receive: Receive, limit: int) -> bytes:
    """A body in several messages, the first of which is here."""
    parts = BytesIO()  # gives away what was written without a copy
    while True:
        if message["type"] == "http.disconnect":
            raise Disconnected
        parts.write(message.get("body", b""))
        if parts.tell() > limit:
            raise body_too_large(limit)
        if not message.get("more_body"):
            return parts.getvalue()
        message = await receive()


def _count_nothing(amount: int) -> None:
    """Used with servers that do not count the memory of bodies."""


def decode_object(body: bytes, known: Sequence[str]) -> dict[str, object]:
    """The JSON object of a body, whose keys are all in `known`, each there once.

    Raises:
        MalformedBody: the body is not JSON.
        InvalidInput: it is not an object, is nested too deeply, or has a key that is unknown; or a
            key occurs twice in it or in the object of the model's inputs. Names the key.
    """
    value = decode_json(body)
    if not isinstance(value, dict):
        raise InvalidInput("the body must be a JSON object")
    for key in value:
        if key not in known:
            raise InvalidInput(f"unknown key; the known ones are: {', '.join(known)}", key)
    inputs = value.get("inputs")
    refuse_repeated_keys(body, len(value) + (len(inputs) if isinstance(inputs, dict) else 0))
    return value


def refuse_repeated_keys(body: bytes, keys: int, end: int | None = None) -> None:
    """Refuses JSON, up to the byte `end` of a body, in which an object has a key twice.

    Decoders keep the last of two equal keys without a word. `keys` is how many were kept, as far as
    the caller knows: with as many colons there are no others, and nothing is looked at.

    Raises:
        InvalidInput: naming the key.
    """
    if body.count(b":", 0, end) == keys:
        return
    found = _json_scan.repeated_key(memoryview(body)[:end])
    if found is None:
        return
    key, top = found[0], found[1] or found[0]
    if key == top:
        raise InvalidInput("the key occurs twice; give it once", key_as_sent(key))
    raise InvalidInput(
        f"the key {excerpt(key_as_sent(key))} occurs twice in one object", key_as_sent(top)
    )


def decode_json(body: bytes | memoryview) -> object:
    """The JSON value of a body.

    NaN, infinities and numbers beyond float64 are taken: Python's own encoder writes the former,
    and the check of the field that holds them tells a client more than a position does.

    Raises:
        MalformedBody: the body is not JSON.
        InvalidInput: it is nested too deeply; names the key of the object.
    """
    if len(body) > CHECKED_BYTES:
        may_be_infinite = check_grammar(body)
        return _not_finite(body, None) if may_be_infinite else orjson.loads(body)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        reason = str(error)  # the error itself holds the whole body
    return _not_finite(body, reason)


def _not_finite(body: bytes | memoryview, reason: str | None) -> object:
    """A body that may be JSON but for numbers that are not finite; `reason`: that it is not JSON
    as it is, None where it may be."""
    deep = _json_scan.too_deep(body, DEEPEST)
    if deep:
        raise InvalidInput(f"is nested more than {DEEPEST} levels deep", key_as_sent(deep))
    found = _json_scan.without_not_finite(body, _MOST_NOT_FINITE)
    if found is None and reason is None:
        return orjson.loads(body)
    value: object = None
    if found is not None:
        with suppress(orjson.JSONDecodeError):
            value = orjson.loads(found[0])
    if value is None or found is None:
        if reason is not None and reason.startswith(_NOT_UTF8):
            raise MalformedBody("the body is not JSON: it is not UTF-8; send it in that encoding")
        raise MalformedBody(f"the body is not JSON: {reason}")
    for number, path in found[1]:
        # A key that is there twice may have another value by now; it is refused as that.
        with suppress(LookupError, TypeError, orjson.JSONDecodeError):
            _put(value, path, number)
    return value


def _put(value: Any, path: list[bytes | int | None], number: float) -> None:
    *way, last = (step if isinstance(step, int) else orjson.loads(step or b"") for step in path)
    for step in way:
        value = value[step]
    value[last] = number
