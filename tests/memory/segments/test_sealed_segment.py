import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from resmem_service.errors import CorruptFile
from resmem_service.memory.rows import MemoryShape
from resmem_service.memory.segments.sealed_segment import SealedSegment

from tests.memory.examples import LABELS, fitted_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fitted_folder(tmp_path)


def opened(folder: Path, dim: int = 64, width: int = 10) -> SealedSegment:
    return SealedSegment.open(folder, MemoryShape(dim, width, "classification"))


def test_what_was_built_is_what_is_opened(folder: Path) -> None:
    segment = opened(folder)
    assert segment.rows == segment.living_rows == 500
    assert np.array_equal(segment.targets, LABELS[:500])
    assert np.array_equal(segment.weights, np.ones(500))
    assert segment.nbytes == sum(
        path.stat().st_size for path in folder.iterdir() if path.name != "segment.json"
    )
    segment.verify()


def test_rows_are_forgotten_by_sequence_once(folder: Path) -> None:
    segment = opened(folder)
    assert segment.forget(-500)
    assert not segment.forget(-500)
    assert not segment.forget(-501)
    assert not segment.forget(7)
    assert segment.living_rows == 499


@pytest.mark.parametrize(
    "name", ["graph.hnsw", "residuals.npy", "targets.npy", "sequences.npy", "weights.npy"]
)
def test_a_flipped_bit_is_found_by_verify(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(CorruptFile, match=f"{name} differs from its checksum"):
        opened(folder).verify()


@pytest.mark.parametrize(
    "name", ["graph.hnsw", "residuals.npy", "targets.npy", "sequences.npy", "weights.npy"]
)
@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_a_cut_file_is_not_opened(folder: Path, name: str, kept: int) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:kept])
    with pytest.raises(CorruptFile, match=f"{name} has .* bytes instead of"):
        opened(folder)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "weights.npy").unlink()
    with pytest.raises(CorruptFile, match=r"weights\.npy is missing"):
        opened(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 1}', b'{"format": 99}'])
def test_a_description_that_is_none_is_named(folder: Path, content: bytes) -> None:
    (folder / "segment.json").write_bytes(content)
    with pytest.raises(CorruptFile, match=r"segment\.json"):
        opened(folder)


@pytest.mark.parametrize(("dim", "width"), [(63, 10), (64, 9)])
def test_a_segment_of_another_model_is_refused(folder: Path, dim: int, width: int) -> None:
    with pytest.raises(CorruptFile, match="where the model gives"):
        opened(folder, dim, width)


def replace_content(folder: Path, name: str, content: bytes) -> None:
    """Another content of a file, of a size that the description agrees with."""
    (folder / name).write_bytes(content)
    description = json.loads((folder / "segment.json").read_text())
    description["files"][name]["bytes"] = len(content)
    (folder / "segment.json").write_text(json.dumps(description))


def array_file(array: np.ndarray, shift: int = 0) -> bytes:
    """An array as numpy writes it, its numbers `shift` bytes further on."""
    header = str({"descr": array.dtype.str, "fortran_order": array.flags.fnc, "shape": array.shape})
    text = header.ljust(117 + shift).encode() + b"\n"
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + array.tobytes("A")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        # Before, a TypeError that named no file.
        ("residuals.npy", lambda a: array_file(np.asfortranarray(a)), "row by row"),
        ("targets.npy", lambda _: array_file(np.array(7, np.int32)), "not 500 rows"),
        # Before, opened; to read it is undefined, and a trap on other processors.
        ("sequences.npy", lambda a: array_file(a, 3), "aligned"),
        ("grid.npy", lambda a: array_file(a, 2), "aligned"),
        # Before, a ValueError that named no file.
        ("graph.hnsw", lambda _: b"", "empty"),
    ],
)
def test_a_file_that_the_kernel_cannot_read_in_place_is_refused(
    folder: Path, name: str, change: Callable[[np.ndarray], bytes], message: str
) -> None:
    array = np.load(folder / name) if name.endswith(".npy") else np.zeros(0)
    replace_content(folder, name, array_file(array) if array.size else b"")
    if array.size:
        opened(folder)
    replace_content(folder, name, change(array))
    with pytest.raises(CorruptFile, match=f"{name} .*{message}"):
        opened(folder)


def test_a_number_beyond_all_bounds_in_the_description_is_refused(folder: Path) -> None:
    text = (folder / "segment.json").read_text()
    (folder / "segment.json").write_text(text.replace('"rows": 500', '"rows": 1e999'))
    with pytest.raises(CorruptFile, match=r"segment\.json does not describe"):
        opened(folder)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("residuals.npy", lambda a: a.astype(np.float64)),
        ("weights.npy", lambda a: a[:-1]),
        ("sequences.npy", lambda a: a.reshape(-1, 1)),
    ],
)
def test_an_array_of_another_shape_is_refused(
    folder: Path, name: str, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    np.save(folder / name, change(np.load(folder / name)))
    description = json.loads((folder / "segment.json").read_text())
    description["files"][name]["bytes"] = (folder / name).stat().st_size
    (folder / "segment.json").write_text(json.dumps(description))
    with pytest.raises(CorruptFile, match=f"{name} holds .* instead of"):
        opened(folder)
