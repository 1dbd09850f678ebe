import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from benchmarks.fashion_mnist import DataMissing, data_folder, load


def write_idx(path: Path, values: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    path.write_bytes(gzip.compress(head + values.tobytes()))


def test_images_and_labels_come_as_they_stand_in_the_files(tmp_path: Path) -> None:
    images = np.arange(3 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(3, 28, 28)
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", images)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.array([9, 0, 4], np.uint8))
    read = load("t10k", tmp_path)
    np.testing.assert_array_equal(read.images, images)
    assert read.labels.tolist() == [9, 0, 4]


def test_missing_files_say_how_to_get_them_with_and_without_root(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"apt-get install dataset-fashion-mnist.*dpkg -x"):
        load("train", tmp_path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(
        gzip.compress(b"\0\0\x0d\x01" + b"\0" * 8)
    )
    with pytest.raises(ValueError, match="unsigned bytes"):
        load("train", tmp_path)


def test_images_without_as_many_labels_are_refused(tmp_path: Path) -> None:
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", np.zeros((2, 28, 28), np.uint8))
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.zeros(3, np.uint8))
    with pytest.raises(ValueError, match="labels"):
        load("train", tmp_path)


def test_a_chosen_folder_wins_over_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESMEM_FASHION_MNIST", str(tmp_path))
    assert data_folder() == tmp_path
    assert data_folder(tmp_path / "chosen") == tmp_path / "chosen"
    monkeypatch.setenv("RESMEM_FASHION_MNIST", "")
    assert data_folder() == Path("/usr/share/datasets/fashion-mnist")
