"""Damaged `.npy` and `.npz` files: one error of ours that names the file, whatever numpy raises.

Beside ValueError that was SyntaxError, tokenize.TokenError and zipfile.BadZipFile, of which Python
3.12 and later raise more: a traceback of 44 lines without the file's name.
"""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from resmem_service.array_file import map_array, read_archive, read_array
from resmem_service.errors import CorruptFile

ARRAY = np.arange(60, dtype=np.float32).reshape(6, 10)


def flipped(content: bytes, at: int, bit: int) -> bytes:
    changed = bytearray(content)
    changed[at] ^= 1 << bit
    return bytes(changed)


@pytest.mark.parametrize("read", [map_array, read_array])
def test_every_bit_of_a_header(tmp_path: Path, read: Callable[[Path], NDArray[np.float32]]) -> None:
    path = tmp_path / "a.npy"
    np.save(path, ARRAY)
    whole = path.read_bytes()
    assert np.array_equal(read(path), ARRAY)
    refused = 0
    for at in range(128):
        for bit in range(8):
            path.write_bytes(flipped(whole, at, bit))
            try:
                assert read(path).size <= ARRAY.size
            except CorruptFile as error:
                complaint = error.message
                assert str(path) in complaint
                assert "\n" not in complaint
                refused += 1
    assert refused > 900


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (6, 10",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 10), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-6, 10), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (6, 10), }",
        "0" + "(" * 90,
        "\x00" * 100,
        "'''",
    ],
)
def test_headers_of_all_kinds(tmp_path: Path, header: str) -> None:
    path = tmp_path / "a.npy"
    text = header.ljust(117).encode("latin1") + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(240))
    for read in (map_array, read_array):
        with pytest.raises(CorruptFile, match=r"a\.npy"):
            read(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\x93NUMPY", b"PK\x03\x04", b"PK\x05\x06" * 9])
def test_what_is_no_array_at_all(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    for read in (map_array, read_array, read_archive):
        with pytest.raises(CorruptFile, match=r"a\.npy"):
            read(path)


def test_an_archive_in_the_place_of_an_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=ARRAY)
    np.save(tmp_path / "a.npy", ARRAY)
    with pytest.raises(CorruptFile, match=r"a\.npz"):
        map_array(tmp_path / "a.npz")
    with pytest.raises(CorruptFile, match="archive"):
        read_archive(tmp_path / "a.npy")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        map_array(tmp_path / "nowhere.npy")


def test_flipped_bits_in_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=ARRAY, y=np.arange(6))
    whole = path.read_bytes()
    assert np.array_equal(read_archive(path)["x"], ARRAY)
    chance = random.Random(1)
    refused = 0
    for at in range(0, len(whole), 3):
        path.write_bytes(flipped(whole, at, chance.randrange(8)))
        try:
            read_archive(path)
        except CorruptFile as error:
            complaint = error.message
            assert str(path) in complaint
            refused += 1
    assert refused > 50
