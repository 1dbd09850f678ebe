"""`resmem fit` run as a user runs it, on arrays that this package already has."""

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from resmem_service.child_command import module_command

__all__ = ["fit"]


def fit(
    work: Path,
    base: Path,
    arrays: Mapping[str, NDArray[Any]],
    *,
    store: Path,
    name: str,
    options: Sequence[str] = (),
) -> None:
    """Fit the memory of the model `base` on `arrays` (inputs by name, and `y`).

    `<store>/<name>` is made anew, so that it holds one version. `work` takes the training file.
    Raises CalledProcessError if the command fails; what it says is on the terminal already.
    """
    work.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(store / name, ignore_errors=True)
    data = work / "train.npz"
    np.savez(data, allow_pickle=False, **arrays)
    command = ["fit", "--model", str(base), "--data", str(data)]
    command += ["--store", str(store), "--name", name, *options]
    print("resmem", *command, flush=True)
    subprocess.run(module_command("resmem_service", *command), check=True)
    data.unlink()
