"""Compressed bodies, apart from the routes."""

import asyncio
import gzip
import zlib
from collections.abc import Callable

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st
from resmem_service.api.content_coding import CODINGS, compress, expand, wished_coding
from resmem_service.api.large_bodies import LargeBodies
from resmem_service.errors import BodyTooLarge, MalformedBody, UnsupportedEncoding
from typing_extensions import Buffer

TEXT = b"the quick brown fox jumps over the lazy dog. " * 5000
"""225 kB: more than is done where it is."""

THEIRS: dict[bytes, Callable[[bytes], bytes]] = {
    b"gzip": gzip.compress,
    b"deflate": zlib.compress,
    b"zstd": zstd.compress,
}
BACK: dict[bytes, Callable[[bytes], bytes]] = {
    b"gzip": gzip.decompress,
    b"deflate": zlib.decompress,
    b"zstd": zstd.decompress,
}
EACH = pytest.mark.parametrize("coding", list(THEIRS))


def expanded(body: bytes, coding: bytes, limit: int = 10**6) -> bytes:
    return asyncio.run(expand(body, coding, limit, lambda _: None, LargeBodies()))


def test_all_are_known() -> None:
    assert CODINGS.keys() == THEIRS.keys()


@EACH
@given(body=st.binary(max_size=300), times=st.integers(0, 400))
def test_there_and_back(coding: bytes, body: bytes, times: int) -> None:
    body *= times
    assert expanded(THEIRS[coding](body), coding) == body
    assert BACK[coding](asyncio.run(compress(body, coding))) == body


@pytest.mark.parametrize("name", [b"identity", b" Identity"])
def test_identity(name: bytes) -> None:
    assert expanded(b"abc", name) == b"abc"


@pytest.mark.parametrize("name", [b"GZIP", b" gzip ", b"x-gzip"])
def test_names_of_gzip(name: bytes) -> None:
    assert expanded(gzip.compress(b"abc"), name) == b"abc"


@pytest.mark.parametrize("name", [b"br", b"", b"gzip, gzip", b"gzip;q=1", b"\xff"])
def test_unknown(name: bytes) -> None:
    with pytest.raises(UnsupportedEncoding) as caught:
        expanded(b"abc", name)
    assert "gzip, deflate, zstd" in caught.value.message


@EACH
def test_the_limit_is_that_of_what_comes_out(coding: bytes) -> None:
    for body in (TEXT, TEXT[:50]):
        packed = THEIRS[coding](body)
        assert expanded(packed, coding, len(body)) == body
        with pytest.raises(BodyTooLarge) as caught:
            expanded(packed, coding, len(body) - 1)
        assert f"{len(body) - 1} bytes" in caught.value.message


@EACH
def test_a_bomb_is_not_unpacked(coding: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than the limit and a byte ever comes out of the library."""
    bomb = THEIRS[coding](bytes(2**26))
    made: list[int] = []
    known = CODINGS[coding]

    class Watched:
        def __init__(self) -> None:
            self.stream = known.stream()

        @property
        def eof(self) -> bool:
            return self.stream.eof

        @property
        def needs_input(self) -> bool:
            return self.stream.needs_input

        @property
        def unused_data(self) -> bytes:
            return self.stream.unused_data

        def decompress(self, data: Buffer, max_length: int) -> bytes:
            content = self.stream.decompress(data, max_length)
            made.append(len(content))
            return content

    monkeypatch.setitem(CODINGS, coding, known._replace(stream=Watched))
    with pytest.raises(BodyTooLarge):
        expanded(bomb, coding, 100_000)
    assert sum(made) == 100_001


@EACH
@pytest.mark.parametrize("body", [TEXT, TEXT[:100]])
def test_damage(coding: bytes, body: bytes) -> None:
    packed = THEIRS[coding](body)
    for damaged in (
        b"",
        b"nonsense",
        packed[:-1],
        packed[: len(packed) // 2],
        packed + b"x",
        packed + packed,
    ):
        with pytest.raises(MalformedBody):
            expanded(damaged, coding)


@pytest.mark.parametrize("coding", [b"gzip", b"deflate"])
def test_a_wrong_checksum(coding: bytes) -> None:
    packed = bytearray(THEIRS[coding](TEXT))
    packed[-5 if coding == b"gzip" else -1] ^= 1
    with pytest.raises(MalformedBody):
        expanded(bytes(packed), coding)


def test_deflate_has_the_header_of_zlib() -> None:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    with pytest.raises(MalformedBody):
        expanded(stream.compress(TEXT) + stream.flush(), b"deflate")


def test_zstd_may_not_ask_for_more_memory_than_8_megabytes() -> None:
    options: dict[int, int] = {
        zstd.CompressionParameter.window_log: 24,
        zstd.CompressionParameter.content_size_flag: 0,
    }
    compressor = zstd.ZstdCompressor(options=options)
    with pytest.raises(MalformedBody):
        expanded(compressor.compress(TEXT) + compressor.flush(), b"zstd")


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ([b"gzip"], b"gzip"),
        ([b"GZIP ; q=0.5"], b"gzip"),
        ([b"deflate"], b"deflate"),
        ([b"zstd, identity;q=0.5"], b"zstd"),
        ([b"identity", b"zstd"], b"zstd"),
        ([b"gzip, deflate;q=0, br;q=0.000"], b"gzip"),
        ([], None),
        ([b""], None),
        ([b"identity"], None),
        ([b"*"], None),
        ([b"br"], None),
        ([b"gzip;q=0"], None),
        ([b"gzip, deflate"], None),
        ([b"gzip, deflate, br, zstd"], None),
        ([b"gzip", b"deflate"], None),
    ],
)
def test_what_a_client_wishes(accepted: list[bytes], coding: bytes | None) -> None:
    headers = [(b"host", b"gzip"), *((b"accept-encoding", value) for value in accepted)]
    assert wished_coding(headers, 5000) == coding


def test_little_is_not_worth_it() -> None:
    headers = [(b"accept-encoding", b"gzip")]
    assert wished_coding(headers, 1023) is None
    assert wished_coding(headers, 1024) == b"gzip"
