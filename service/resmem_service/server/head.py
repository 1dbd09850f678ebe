"""The head of a request: bytes that end with an empty line in, a checked `Head` out.

The connection cuts the head out of what it has read, so a head is limited in size before anything
looks inside it. What decides where the body ends is read strictly: two readings of one head by two
servers in a row are how requests are smuggled (RFC 9112, section 11.2).
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

import httptools

from resmem_service.api.errors import RouteNotFound
from resmem_service.errors import (
    ExpectationFailed,
    HeadTooLarge,
    HttpVersionNotSupported,
    MalformedRequest,
    UnknownMethod,
    UnsupportedTransferCoding,
)

__all__ = ["MOST_HEADERS", "Head", "is_start_of_request", "parse_head", "request_line"]

MOST_HEADERS: Final = 128
"""Header lines in one request. Each becomes three Python objects, however short it is."""

_METHODS: Final = frozenset(
    (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE")
)
_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_REQUEST_LINE: Final = re.compile(rb"(%b+) ([\x21-\x7e]+) HTTP/(\d)\.(\d)\r\n" % _TOKEN)
_REQUEST_START: Final = re.compile(
    # As much of a request line and of lines after it as has come; the rest may still follow.
    rb"%b+(?: (?:[\x21-\x7e]+(?: (?:H(?:T(?:T(?:P(?:/[0-9.]*)?)?)?)?)?\r?)?)?)?" % _TOKEN
)
_LOOKED_AT: Final = 1024
"""So much of a first line is looked at before it is complete."""
_ONCE: Final = frozenset((b"host", b"origin", b"authorization", b"content-type"))
"""Headers that decide who asks and what for: of two a server before this one may take the other."""
_LONE_LINE_FEED: Final = re.compile(rb"(?<!\r)\n")


@dataclass(slots=True, eq=False)
class Head:
    """What the head of a request says."""

    method: str
    path: str
    """Percent-decoded."""
    raw_path: bytes
    query: bytes
    version: str
    """`1.0` or `1.1`."""
    headers: list[tuple[bytes, bytes]]
    """Names in lower case."""
    keep_alive: bool
    """Whether the client takes another answer on this connection."""
    length: int | None
    """Bytes of the body; None: it comes in chunks."""
    expects_continue: bool
    """Whether the client waits for `100 Continue` before it sends the body."""


class _Collector:
    """What the parser calls."""

    __slots__ = ("complete", "headers")

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.complete = True


def request_line(raw: bytes) -> tuple[bytes, bytes] | None:
    """Method and target as they stand in the first line of a head, if it has these."""
    match = _REQUEST_LINE.match(raw)
    return None if match is None else (match[1], match[2])


def is_start_of_request(raw: bytes | bytearray, checked: int = 0) -> bool:
    """Whether more bytes could make a head of this, which has no empty line yet.

    A TLS handshake, a line feed without its carriage return or an HTTP/0.9 request never will.
    The first `checked` bytes were found well before.
    """
    if _LONE_LINE_FEED.search(raw, max(0, checked - 1)):
        return False
    if raw.find(b"\r\n") >= 0:
        return _REQUEST_LINE.match(raw) is not None
    # Of a long line the beginning tells, and it was looked at while the line was short.
    return checked >= _LOOKED_AT or _REQUEST_START.fullmatch(raw[:_LOOKED_AT]) is not None


def parse_head(raw: bytes) -> Head:
    """Reads a head, from its first letter to the empty line that ends it.

    Raises:
        MalformedRequest: it is not HTTP, or it is ambiguous where the body ends.
        HttpVersionNotSupported: it is neither HTTP/1.0 nor HTTP/1.1.
        UnknownMethod, UnsupportedTransferCoding: it asks for what no server here can do.
        ExpectationFailed: it expects something else than `100-continue`.
        HeadTooLarge: it has more than `MOST_HEADERS` headers.
        RouteNotFound: its path is not UTF-8.
    """
    match = _REQUEST_LINE.match(raw)
    if match is None:
        raise MalformedRequest("the first line is not `METHOD TARGET HTTP/1.1`")
    method, target, major, minor = match.groups()
    if (major, minor) not in ((b"1", b"1"), (b"1", b"0")):
        raise HttpVersionNotSupported(
            f"HTTP/{major.decode()}.{minor.decode()} is not supported; use HTTP/1.1"
        )
    if method not in _METHODS:
        raise UnknownMethod(f"the method {method[:40].decode()!r} is not supported by any route")
    if raw.count(b"\r\n") - 2 > MOST_HEADERS:
        raise HeadTooLarge(f"the request has more than {MOST_HEADERS} headers")
    headers = _headers(raw)
    version = f"1.{minor.decode()}"
    keep_alive = version == "1.1"
    length: int | None = 0
    expects_continue = False
    once = set[bytes]()
    for name, value in headers:
        if name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            if version == "1.0":
                raise MalformedRequest("HTTP/1.0 has no Transfer-Encoding")
            length = None
        elif name == b"connection":
            if b"close" in [token.strip() for token in value.lower().split(b",")]:
                keep_alive = False
        elif name == b"expect":
            if value.strip().lower() != b"100-continue":
                raise ExpectationFailed("only the expectation `100-continue` can be met")
            expects_continue = version == "1.1"
        elif name in _ONCE:
            if name in once:
                raise MalformedRequest(f"the request has more than one header `{name.decode()}`")
            once.add(name)
    path, query = _path_and_query(target)
    return Head(
        method=method.decode(),
        path=_unquoted(path),
        raw_path=path,
        query=query,
        version=version,
        headers=headers,
        keep_alive=keep_alive,
        length=length,
        expects_continue=expects_continue and length != 0,
    )


def _headers(raw: bytes) -> list[tuple[bytes, bytes]]:
    collector = _Collector()
    failure = None
    try:
        httptools.HttpRequestParser(collector).feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass  # a request to change the protocol may be passed over (RFC 9110, section 7.8)
    except httptools.HttpParserError as error:
        failure = str(error)
    codings = [value for name, value in collector.headers if name == b"transfer-encoding"]
    if codings and any(value.strip().lower() != b"chunked" for value in codings):
        raise UnsupportedTransferCoding("the only Transfer-Encoding known here is `chunked`")
    if failure is not None or not collector.complete:
        raise MalformedRequest(f"the head of the request is not HTTP/1.1: {failure}")
    return collector.headers


def _path_and_query(target: bytes) -> tuple[bytes, bytes]:
    if target == b"*":
        return target, b""
    if b"#" in target:
        raise MalformedRequest("the target of the request has a fragment; write `#` as %23")
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserError as error:
        raise MalformedRequest(f"the target of the request is not a URL: {error}") from None
    return url.path or b"/", url.query or b""


def _unquoted(path: bytes) -> str:
    if b"%" not in path:
        return path.decode("ascii")
    try:
        return unquote_to_bytes(path).decode()
    except UnicodeDecodeError:  # a replacement for what is none may be the name of something else
        raise RouteNotFound("no path has bytes that are not UTF-8 behind its %-escapes") from None
