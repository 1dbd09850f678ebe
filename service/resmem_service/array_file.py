"""Reads `.npy` and `.npz` files that may be damaged: whatever numpy meets, errors name the file.

numpy hands the header to Python's own parser, so that a damaged one ends in whatever that raises:
ValueError, SyntaxError, tokenize.TokenError, and zipfile.BadZipFile where the file begins like an
archive. Which of them it is differs from one version of Python to the next.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resmem_service.errors import CorruptFile

__all__ = ["map_array", "read_archive", "read_array"]


def map_array(path: Path) -> NDArray[Any]:
    """The array in an `.npy` file, mapped and read-only; pickled objects are refused.

    Raises:
        CorruptFile: it is not such a file, or holds fewer bytes than its header says.
        OSError: it cannot be opened or mapped now.
    """
    with _named(path, "an array file"):
        # Not `np.load`, which looks for archives and pickles, and leaves a damaged archive open.
        return np.lib.format.open_memmap(path, mode="r")


def read_array(path: Path) -> NDArray[Any]:
    """As `map_array`, in RAM.

    The file is mapped first: a damaged header may name more elements than there is memory.
    """
    return np.array(map_array(path))


def read_archive(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays in an `.npz` file, by name; pickled objects are refused.

    Raises:
        CorruptFile: it is not such a file, or one of its arrays is damaged.
        OSError: it cannot be read now.
    """
    with path.open("rb") as file, _named(path, "an archive of arrays"):
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray) or not loaded.files:
            raise ValueError("it holds no named arrays")
        with loaded:
            return {name: loaded[name] for name in loaded.files}


@contextmanager
def _named(path: Path, kind: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # MemoryError as well: of a size that a damaged header names
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # of a place before the file
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CorruptFile(f"{path} is not {kind}: {reason}") from error
