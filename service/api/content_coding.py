"""Compressed bodies: `Content-Encoding` of requests, `Accept-Encoding` for answers.

`gzip` and `deflate` always, `zstd` where the extra of that name is installed. The limit of a body
is that of what comes out of it: no more than that is ever unpacked. What is quickly done is done
where it is, the rest in another thread, since zlib and zstd give up the GIL.

An answer is compressed for a client that names exactly one coding. Most HTTP libraries list all
that they know with every request and mean no wish by it, and compressing costs more time than a
fast network saves.
"""

import asyncio
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final, NamedTuple

from service.errors import BodyTooLarge, MalformedBody, UnsupportedEncoding
from service.excerpt import excerpt

__all__ = ["CODINGS", "body_too_large", "compress", "expand", "wished_coding"]

_WORTH: Final = 1024
"""Bytes below which an answer stays as it is: it fits a packet or two either way."""
_QUICK: Final = 2**16
"""Bytes that are compressed or expanded in less than a millisecond."""
_FAST: Final = 1
_GZIP: Final = zlib.MAX_WBITS | 16
_ZLIB: Final = zlib.MAX_WBITS
"""What HTTP calls `deflate` is a zlib stream (RFC 9110, section 8.4.1.2)."""


class Coding(NamedTuple):
    """Both ways of one coding."""

    compress: Callable[[bytes], bytes]
    expand: Callable[[bytes, int], bytes]
    """A body, and how many bytes of it to make at most.

    Raises ValueError for what is damaged, cut short or followed by something else. What has
    reached the bound is not checked: it is thrown away.
    """


async def expand(body: bytes, coding: bytes, limit: int) -> bytes:
    """What a body was before it was put into this `Content-Encoding`.

    Raises:
        UnsupportedEncoding: nobody here knows the coding, or there are several.
        BodyTooLarge: more than `limit` bytes come out.
        MalformedBody: it is damaged.
    """
    name = coding.strip().lower()
    if name == b"identity":
        return body
    known = CODINGS.get(name.removeprefix(b"x-"))
    if known is None:
        listed = b", ".join(CODINGS).decode()
        raise UnsupportedEncoding(f"the body is encoded as {excerpt(name)}; known are: {listed}")
    if len(body) <= _QUICK:
        with suppress(BodyTooLarge):
            return _expanded(body, known, min(limit, _QUICK))
    return await asyncio.to_thread(_expanded, body, known, limit)


async def compress(body: bytes, coding: bytes) -> bytes:
    """A body in one of `CODINGS`."""
    known = CODINGS[coding]
    if len(body) <= _QUICK:
        return known.compress(body)
    return await asyncio.to_thread(known.compress, body)


def wished_coding(headers: Iterable[tuple[bytes, bytes]], size: int) -> bytes | None:
    """The coding that a request wants its answer of so many bytes in; None: as it is."""
    if size < _WORTH:
        return None
    named = []
    for header, value in headers:
        if header == b"accept-encoding":
            for each in value.lower().split(b","):
                name, _, weight = each.partition(b";")
                if name.strip() not in (b"identity", b"") and not _is_zero(weight):
                    named.append(name.strip())
    return named[0] if len(named) == 1 and named[0] in CODINGS else None


def body_too_large(limit: int) -> BodyTooLarge:
    """The refusal of a body."""
    return BodyTooLarge(f"the body is over the limit of {limit} bytes")


def _expanded(body: bytes, coding: Coding, limit: int) -> bytes:
    try:
        content = coding.expand(body, limit + 1)
    except ValueError as error:
        raise MalformedBody(f"the body is not in its Content-Encoding: {error}") from error
    if len(content) > limit:
        raise body_too_large(limit)
    return content


def _is_zero(weight: bytes) -> bool:
    """Whether `q=0` says that a coding is not acceptable."""
    _, _, number = weight.partition(b"=")
    return bool(number) and not number.strip(b" 0.")


def _inflate(body: bytes, bound: int, header: int) -> bytes:
    stream = zlib.decompressobj(header)
    try:
        content = stream.decompress(body, bound)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(content) < bound and not stream.eof:
        raise ValueError("it is cut short")
    if stream.unused_data:
        raise ValueError("something follows its end")
    return content


def _of_zlib(header: int) -> Coding:
    return Coding(
        lambda body: zlib.compress(body, _FAST, header),
        lambda body, bound: _inflate(body, bound, header),
    )


CODINGS: Final = {b"gzip": _of_zlib(_GZIP), b"deflate": _of_zlib(_ZLIB)}
"""By name."""

with suppress(ImportError):
    from service.api import zstd_coding

    CODINGS[b"zstd"] = Coding(zstd_coding.compress, zstd_coding.expand)
