"""Reading `.npy` files that may be damaged: whatever numpy makes of one, the error names the file.

numpy hands the header to Python's own parser, so that a damaged one ends in whatever that raises:
ValueError, SyntaxError, tokenize.TokenError, and zipfile.BadZipFile where the file begins like an
archive. Which of them it is differs from one version of Python to the next.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import CorruptFile

__all__ = ["map_array"]


def map_array(path: Path) -> NDArray[Any]:
    """The array in an `.npy` file, mapped and read-only; pickled objects are refused.

    Raises:
        CorruptFile: it is not such a file, or holds fewer bytes than its header says.
        OSError: it cannot be opened or mapped now.
    """
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, MemoryError):
        raise
    except Exception as error:
        raise CorruptFile(f"{path} is not an array file: {_line(error)}") from error
    if not isinstance(loaded, np.ndarray):
        loaded.close()
        raise CorruptFile(f"{path} is an archive of arrays, not an array file")
    return loaded


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
