"""Heads of requests, apart from connections."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from resmem_service.api.errors import RouteNotFound
from resmem_service.errors import (
    ExpectationFailed,
    HeadTooLarge,
    HttpVersionNotSupported,
    MalformedRequest,
    ResmemError,
    UnknownMethod,
    UnsupportedTransferCoding,
)
from resmem_service.server.head import MOST_HEADERS, is_start_of_request, parse_head


def raw(*lines: str) -> bytes:
    return "\r\n".join((*lines, "", "")).encode("latin-1")


def post(*headers: str) -> bytes:
    return raw("POST /predict HTTP/1.1", "Host: a", *headers)


def test_what_a_head_says() -> None:
    head = parse_head(
        raw("POST /a%20b?c=%20d HTTP/1.1", "Host: a", "X-Y:  z ", "Content-Length: 12")
    )
    assert (head.method, head.version) == ("POST", "1.1")
    assert (head.path, head.raw_path, head.query) == ("/a b", b"/a%20b", b"c=%20d")
    assert head.headers[1][0] == b"x-y"
    assert head.headers[1][1].strip() == b"z"
    assert (head.length, head.keep_alive, head.expects_continue) == (12, True, False)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/", "/"),
        ("http://host:80/predict?a", "/predict"),
        ("http://host", "/"),
        ("*", "*"),
        ("/%F0%9F%98%80%zz%", "/\U0001f600%zz%"),
    ],
)
def test_targets(target: str, path: str) -> None:
    assert parse_head(raw(f"OPTIONS {target} HTTP/1.1")).path == path


@pytest.mark.parametrize(
    ("head", "length"),
    [
        (post(), 0),
        (post("Content-Length: 0"), 0),
        (post("content-length:7"), 7),
        (post("Transfer-Encoding: Chunked"), None),
    ],
)
def test_where_the_body_ends(head: bytes, length: int | None) -> None:
    assert parse_head(head).length == length


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        (post(), True),
        (post("Connection: a, Close"), False),
        (post("Connection: keep-alive", "Connection: close"), False),
        (raw("GET / HTTP/1.0"), False),
        (raw("GET / HTTP/1.0", "Connection: keep-alive"), False),
    ],
)
def test_whether_the_connection_stays(head: bytes, kept: bool) -> None:
    assert parse_head(head).keep_alive is kept


def test_a_request_to_change_the_protocol_is_passed_over() -> None:
    head = post("Connection: Upgrade", "Upgrade: websocket", "Content-Length: 3")
    assert parse_head(head).length == 3


@pytest.mark.parametrize(
    ("head", "error"),
    [
        (b"nonsense\r\n\r\n", MalformedRequest),
        (raw("GET  / HTTP/1.1"), MalformedRequest),
        (raw("GET / HTTP/1.1 "), MalformedRequest),
        (raw("GET /a b HTTP/1.1"), MalformedRequest),
        (raw("GET / RTSP/1.0"), MalformedRequest),
        (raw("GET /\xe9 HTTP/1.1"), MalformedRequest),
        (raw("GET http:// HTTP/1.1"), MalformedRequest),
        (raw("DELETE /memories/a#b HTTP/1.1"), MalformedRequest),
        (raw("DELETE /memories/%ff HTTP/1.1"), RouteNotFound),
        (raw("DELETE /memories/%ED%A0%80 HTTP/1.1"), RouteNotFound),
        (post("Content-Length: 1", "Content-Length: 1"), MalformedRequest),
        (post("Content-Length: 1, 1"), MalformedRequest),
        (post("Content-Length: +1"), MalformedRequest),
        (post("Content-Length: -1"), MalformedRequest),
        (post("Content-Length: 0x1"), MalformedRequest),
        (post("Content-Length: ten"), MalformedRequest),
        (post("Content-Length: " + "9" * 30), MalformedRequest),
        (post("Content-Length: 1", "Transfer-Encoding: chunked"), MalformedRequest),
        (post("Transfer-Encoding: chunked", "Content-Length: 1"), MalformedRequest),
        (post("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), MalformedRequest),
        (raw("POST / HTTP/1.0", "Transfer-Encoding: chunked"), MalformedRequest),
        (post("Host: b"), MalformedRequest),
        (post("Origin: a", "origin: a"), MalformedRequest),
        (post("Authorization: Bearer a", "Authorization: Bearer b"), MalformedRequest),
        (post("Content-Type: a", "X: b", "Content-Type: c"), MalformedRequest),
        (post("X : a"), MalformedRequest),
        (post("X: a", " folded"), MalformedRequest),
        (post("X: a\nContent-Length: 5"), MalformedRequest),
        (post("X: a\rContent-Length: 5"), MalformedRequest),
        (post("X: a\0b"), MalformedRequest),
        (post("Transfer-Encoding: gzip"), UnsupportedTransferCoding),
        (post("Transfer-Encoding: gzip, chunked"), UnsupportedTransferCoding),
        (post("Transfer-Encoding: xchunked"), UnsupportedTransferCoding),
        (raw("FOO / HTTP/1.1"), UnknownMethod),
        (raw("get / HTTP/1.1"), UnknownMethod),
        (raw("CONNECT a:1 HTTP/1.1"), UnknownMethod),
        (raw("PRI * HTTP/2.0"), HttpVersionNotSupported),
        (raw("GET / HTTP/1.2"), HttpVersionNotSupported),
        (post("Expect: 200-ok"), ExpectationFailed),
        (post(*["a:"] * MOST_HEADERS), HeadTooLarge),
    ],
)
def test_what_is_refused(head: bytes, error: type[ResmemError]) -> None:
    with pytest.raises(error):
        parse_head(head)


def test_only_who_has_a_body_waits_to_send_it() -> None:
    assert parse_head(post("Expect: 100-Continue", "Content-Length: 1")).expects_continue
    assert not parse_head(post("Expect: 100-continue")).expects_continue
    old = raw("POST / HTTP/1.0", "Expect: 100-continue", "Content-Length: 1")
    assert not parse_head(old).expects_continue


def test_a_long_line_may_still_become_a_request() -> None:
    line = b"GET /" + b"a" * 5000
    assert all(is_start_of_request(line, checked) for checked in (0, 1000, 3000))


@given(st.integers(0, 200))
def test_every_beginning_of_a_request_is_one(length: int) -> None:
    whole = post("Content-Length: 3", "A-Header: with a value")
    beginning = whole[: min(length, len(whole) - 1)] or b"P"
    for checked in (0, len(beginning) // 2):
        assert is_start_of_request(beginning, checked)


@pytest.mark.parametrize(
    "beginning",
    [
        b"\x16\x03\x01\x02",  # TLS
        b"GET /\r\n",  # HTTP/0.9
        b"GET / HTTP/1.1\nHost: a",
        b"GET / HTTP/1.1\r\nHost: a\n",
        b"GET / FTP",
        b"GET / HTTP/1.1 x",
        b"G(T",
        b" GET",
        b"\xff" * 2000,
        b"GET /" + b"a" * 500 + b"\0" + b"a" * 2000,
    ],
)
def test_what_cannot_become_a_request(beginning: bytes) -> None:
    assert not is_start_of_request(beginning)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_head_or_refused(content: bytes) -> None:
    for head in (content + b"\r\n\r\n", b"POST / HTTP/1.1\r\n" + content + b"\r\n\r\n"):
        with suppress(ResmemError):
            assert parse_head(head).headers is not None
