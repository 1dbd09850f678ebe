"""Fashion-MNIST, read from the files of the Debian package `dataset-fashion-mnist` (MIT licence).

Source: Xiao, Rasul, Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
Learning Algorithms", 2017 (arXiv 1708.07747): 60,000 training and 10,000 test images, ten
balanced classes.
"""

import gzip
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["CLASSES", "DataMissing", "Images", "data_folder", "load"]

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

_DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
_FOLDER_VARIABLE = "RESMEM_FASHION_MNIST"
_UINT8 = 0x08

Split = Literal["train", "t10k"]


class DataMissing(SystemExit):
    """The files are not there: ends a script with how to get them, with and without root."""


@dataclass(frozen=True, slots=True)
class Images:
    """One split, in the order of its files: `images` uint8 [n, 28, 28], `labels` int64 [n]."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)


def data_folder(chosen: Path | None = None) -> Path:
    """The folder of the four files: `chosen`, else $RESMEM_FASHION_MNIST, else Debian's."""
    if chosen is not None:
        return chosen
    return Path(os.environ.get(_FOLDER_VARIABLE) or _DEBIAN_FOLDER)


def load(split: Split, folder: Path) -> Images:
    """Read one split; raises `DataMissing` without its files, `ValueError` if they are damaged."""
    images = _read_idx(folder / f"{split}-images-idx3-ubyte.gz")
    labels = _read_idx(folder / f"{split}-labels-idx1-ubyte.gz")
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise ValueError(f"{folder}: {images.shape} images beside {labels.shape} labels")
    return Images(images, labels.astype(np.int64))


def _read_idx(path: Path) -> NDArray[np.uint8]:
    """The array in an idx file: u16 zero, u8 type, u8 rank, rank x u32 big-endian, the values."""
    try:
        content = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise DataMissing(
            f"{path} is missing. Fashion-MNIST comes with the Debian package"
            " `dataset-fashion-mnist`: `sudo apt-get install dataset-fashion-mnist`, or without"
            " root `apt-get download dataset-fashion-mnist && dpkg -x dataset-fashion-mnist_*.deb"
            f" fashion`, then set {_FOLDER_VARIABLE}=fashion{_DEBIAN_FOLDER} (or pass it as"
            " --data). From elsewhere, the four original .gz files in one folder do as well."
        ) from None
    zero, kind, rank = struct.unpack_from(">HBB", content)
    if zero != 0 or kind != _UINT8:
        raise ValueError(f"{path} is not an idx file of unsigned bytes")
    shape = struct.unpack_from(f">{rank}I", content, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
