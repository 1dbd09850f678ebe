"""Targets as the model means them: class indices or numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from resmem_service.errors import BundleError
from resmem_service.inference.residuals import Task

__all__ = ["Labels", "decide_task", "numbers", "read_classes"]


def read_classes(option: str) -> list[str]:
    """Class names in the order of the model's outputs: a file, one a line, or `a,b,c`.

    Raises:
        BundleError: fewer than two, or one of them twice.
    """
    path = Path(option)
    try:
        is_file = path.is_file()
        text = path.read_text(encoding="utf-8") if is_file else option.replace(",", "\n")
    except UnicodeDecodeError as error:
        raise BundleError(f"--classes {option}: not a text file in UTF-8: {error}") from error
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if len(names) < 2:
        raise BundleError(
            f"--classes {option}: neither a file with a class name a line, nor names a,b,c"
        )
    for name in names:
        if names.count(name) > 1:
            raise BundleError(f"--classes {option}: {name!r} is named twice")
    return names


def decide_task(targets: NDArray[Any], *, width: int, probabilities: bool) -> Task:
    """What the targets are: classes or numbers.

    `width` is L; `probabilities` says that the model ends in a Softmax or Sigmoid. Strings,
    booleans, and one value a row for a model of several outputs, are classes; of one output,
    integers that are all 0 or 1 are classes, other values numbers.
    """
    if probabilities or targets.dtype.kind in "Ub":
        return "classification"
    if targets.ndim == 2:
        return "regression"
    if width > 1:  # one value a row for several outputs can only be a class
        return "classification"
    # One output and integers: a count to regress, unless there are only 0 and 1.
    binary = targets.dtype.kind in "iu" and bool(np.isin(targets, (0, 1)).all())
    return "classification" if binary else "regression"


def numbers(targets: NDArray[Any], *, width: int, source: str) -> NDArray[np.float32]:
    """Regression targets `[n, L]`.

    Raises:
        BundleError: strings, or another number of columns than the model has outputs.
    """
    if targets.dtype.kind == "U":
        raise BundleError(
            f"{source}: the targets are strings such as {str(targets.flat[0])!r}: use "
            "--task classification"
        )
    table = targets.reshape(len(targets), -1)
    if table.shape[1] != width:
        raise BundleError(
            f"{source}: {table.shape[1]} numbers per target, the model gives {width}: name the "
            "columns with --target a,b, or the model's outputs with --output"
        )
    with np.errstate(over="ignore"):
        result: NDArray[np.float32] = table.astype(np.float32)
    bad = np.logical_not(np.isfinite(result).all(axis=1))
    if bad.any():
        raise BundleError(f"{source}: the target of row {int(bad.argmax())} overflows float32")
    return result


@dataclass(frozen=True, slots=True)
class Labels:
    """The classes, and how the labels of the file name them."""

    names: tuple[str, ...]
    """In the order of the model's outputs."""
    by_index: bool
    """Whether labels are indices of the outputs; else they are names."""

    @classmethod
    def decide(
        cls,
        targets: NDArray[Any],
        *,
        width: int,
        classes: Sequence[str] | None,
        source: str,
    ) -> Self:
        """Find out from the labels of the training set.

        `classes` are the names, from `--classes` or from the model itself; None takes the
        distinct labels in sorted order, as scikit-learn and most others number them.

        Raises:
            BundleError: they do not fit the model's L outputs.
        """
        labels = _plain(targets, source)
        if classes is not None:
            if len(classes) != width:
                raise BundleError(f"{len(classes)} classes, but the model has {width} outputs")
            indices = labels.dtype.kind in "iu" and not all(map(_whole, classes))
            return cls(tuple(classes), by_index=indices)
        if labels.dtype.kind in "iu" and labels.min() >= 0 and labels.max() < width:
            return cls(tuple(map(str, range(width))), by_index=True)
        found = np.unique(labels)
        if len(found) != width:
            shown = ", ".join(map(str, found[:6])) + (", ..." if len(found) > 6 else "")
            raise BundleError(
                f"{source}: {len(found)} distinct labels ({shown}), but the model has {width} "
                "outputs: give the classes in the order of the outputs with --classes a,b,c or "
                "--classes FILE"
                + ("" if labels.dtype.kind == "U" else ", or use --task regression")
            )
        return cls(tuple(map(str, found.tolist())), by_index=False)

    def encode(self, targets: NDArray[Any], source: str) -> NDArray[np.int32]:
        """Class indices `[n]`.

        Raises:
            BundleError: a label that is not a class; names its row.
        """
        labels = _plain(targets, source)
        if self.by_index and labels.dtype.kind in "iu":
            indices = labels.astype(np.int64)
        else:
            index = {name: number for number, name in enumerate(self.names)}
            found, inverse = np.unique(labels, return_inverse=True)
            indices = np.array([index.get(str(label), -1) for label in found.tolist()])[inverse]
        bad = (indices < 0) | (indices >= len(self.names))
        if bad.any():
            row = int(bad.argmax())
            raise BundleError(
                f"{source}: the label {str(labels[row])!r} of row {row} is none of the "
                f"{len(self.names)} classes {', '.join(self.names[:6])}"
                + (", ..." if len(self.names) > 6 else "")
            )
        return indices.astype(np.int32)


def _plain(targets: NDArray[Any], source: str) -> NDArray[Any]:
    """Labels `[n]` as integers or strings; whole numbers in any dress are integers."""
    if targets.ndim != 1:
        raise BundleError(
            f"{source}: {targets.shape[1]} values per label; expected one class per row (for "
            "one-hot rows save their argmax), or use --task regression"
        )
    if targets.dtype.kind == "U":
        return (
            targets.astype(np.int64) if all(map(_whole, np.unique(targets).tolist())) else targets
        )
    if targets.dtype.kind == "f":
        whole = targets == np.floor(targets)
        if not whole.all():
            row = int(np.logical_not(whole).argmax())
            raise BundleError(
                f"{source}: the label {targets[row]} of row {row} is not a class: use "
                "--task regression"
            )
    return targets.astype(np.int64)


def _whole(label: str) -> bool:
    return label.isascii() and label.removeprefix("-").isdigit() and str(int(label)) == label
