"""Bodies in chunks, apart from connections."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from resmem_service.errors import BodyTooLarge, HeadTooLarge, MalformedRequest
from resmem_service.server.chunked import ChunkedBody

LIMIT = 20_000


def read(wire: bytes, step: int = 10**6, framing: int = 1000) -> tuple[bytes, bytes, bool]:
    """The body, what follows it, and whether it is complete."""
    body, chunks = b"", ChunkedBody(framing, LIMIT)
    for at in range(0, len(wire), step):
        pieces, used = chunks.feed(wire[at : at + step])
        body += b"".join(pieces)
        if chunks.complete:
            return body, wire[at + used :], True
    return body, b"", False


def chunk(part: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(part), part)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=5), st.integers(1, 30))
def test_however_it_is_cut(parts: list[bytes], step: int) -> None:
    wire = b"".join(map(chunk, parts)) + b"0\r\nA: b\r\n\r\nGET next"
    assert read(wire, step) == (b"".join(parts), b"GET next", True)


@pytest.mark.parametrize("size", [b"3", b"003", b"3;a=b", b'3 ;a="b c"'])
def test_sizes(size: bytes) -> None:
    assert read(size + b"\r\nabc\r\n0\r\n\r\n")[0] == b"abc"


@pytest.mark.parametrize(
    "wire",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"0x1\r\n",
        b" 1\r\n",
        b"1" * 16 + b"\r\n",
        b"1\na\r\n",
        b"1\r\nab\r\n",
        b"1\r\na\n",
        b"1;a\0\r\n",
        b"0\r\nno header\r\n",
        b"0\r\n: b\r\n",
        b"0\r\n\n",
    ],
)
@pytest.mark.parametrize("step", [1, 100])
def test_what_is_refused(wire: bytes, step: int) -> None:
    with pytest.raises(MalformedRequest):
        read(wire, step)


@pytest.mark.parametrize(
    "wire", [b"1;" + b"a" * 5000, b"1;" + b"a" * 5000 + b"\r\n", b"0\r\n" + b"A: b\r\n" * 1000]
)
@pytest.mark.parametrize("step", [7, 10**6])
def test_what_surrounds_the_chunks_is_bounded(wire: bytes, step: int) -> None:
    with pytest.raises(HeadTooLarge):
        read(wire, step)


def test_extensions_of_many_chunks_are_bounded_together() -> None:
    with pytest.raises(HeadTooLarge):
        read((b"1;" + b"e" * 50 + b"\r\na\r\n") * 1000)


@pytest.mark.parametrize(
    "wire",
    [
        b"f" * 15 + b"\r\n",
        b"%x\r\n" % (LIMIT + 1),
        chunk(b"a" * 9000) * 2 + b"%x\r\n" % (LIMIT - 17_999),
    ],
)
@pytest.mark.parametrize("step", [3, 10**6])
def test_what_is_too_large_is_refused_when_it_is_announced(wire: bytes, step: int) -> None:
    with pytest.raises(BodyTooLarge):
        read(wire, step)


def test_as_much_as_the_limit_passes() -> None:
    wire = chunk(b"a" * 15_000) + chunk(b"a" * 5000) + b"0\r\n\r\n"
    assert read(wire) == (b"a" * LIMIT, b"", True)


def test_plain_chunks_cost_less_than_those_read_line_by_line() -> None:
    """Else some MB of chunks of a single byte hold up everybody for seconds."""

    def seconds(wire: bytes) -> float:
        took = []
        for _ in range(5):
            chunks = ChunkedBody(10**6, 10**6)
            began = time.thread_time()
            pieces, _ = chunks.feed(wire)
            took.append(time.thread_time() - began)
            assert len(pieces) == 20_000
        return min(took)

    assert seconds(b"1\r\na\r\n" * 20_000) < seconds(b"1;\r\na\r\n" * 20_000) / 1.5


def test_chunks_of_one_byte_pass_however_many() -> None:
    wire = chunk(b"a") * 10_000 + b"0\r\n\r\n"
    assert read(wire) == (b"a" * 10_000, b"", True)
