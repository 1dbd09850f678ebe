"""Two public tables: handwritten letters to classify, diamonds to price; read, split, never copied.

Both splits are fixed before anything is fitted. A test row is no row of the training part.
"""

import csv
import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LETTERS", "Split", "TableMissing", "diamonds", "letters"]

LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")

_LETTERS_PATH = Path("/usr/lib/R/site-library/mlbench/data/LetterRecognition.rda")
_LETTERS_VARIABLE = "RESMEM_LETTERS"
_LETTERS_TRAINING = 16_000
_DIAMONDS_PATH = Path("plotnine/data/diamonds.csv")
_DIAMONDS_VARIABLE = "RESMEM_DIAMONDS"
_DIAMONDS_TEST = 10_000
_CUTS = ("Fair", "Good", "Very Good", "Premium", "Ideal")
_COLOURS = "JIHGFED"
_CLARITIES = ("I1", "SI2", "SI1", "VS2", "VS1", "VVS2", "VVS1", "IF")


class TableMissing(SystemExit):
    """A file or a reader is not there: ends a script with how to get it."""


@dataclass(frozen=True, slots=True)
class Split:
    """Training and test rows: features float32 [n, d]; targets int64 [n], or float32 [n]."""

    train_x: NDArray[np.float32]
    train_y: NDArray[Any]
    test_x: NDArray[np.float32]
    test_y: NDArray[Any]


def letters(chosen: Path | None = None) -> Split:
    """20,000 handwritten letters, 16 integer features, 26 classes; the last 4,000 are the test.

    That split is the authors' own. Source: Frey, Slate, "Letter recognition using Holland-style
    adaptive classifiers", Machine Learning 6 (1991), as `LetterRecognition` of R's mlbench.
    """
    path = chosen or Path(os.environ.get(_LETTERS_VARIABLE) or _LETTERS_PATH)
    if not path.is_file():
        raise TableMissing(
            f"{path} is missing. It comes with the Debian package `r-cran-mlbench`: `sudo apt-get"
            " install r-cran-mlbench`, or without root `apt-get download r-cran-mlbench && dpkg -x"
            f" r-cran-mlbench_*.deb mlbench`, then set {_LETTERS_VARIABLE}=mlbench{_LETTERS_PATH}"
            " (or pass it as --data)."
        )
    try:
        rdata = importlib.import_module("rdata")
    except ModuleNotFoundError:
        raise TableMissing(f"reading {path} needs a package: `pip install rdata`") from None
    table = rdata.read_rda(path)["LetterRecognition"]
    index = {letter: number for number, letter in enumerate(LETTERS)}
    labels = np.array([index[letter] for letter in table["lettr"]], np.int64)
    features = table.drop(columns="lettr").to_numpy(np.float32)
    at = _LETTERS_TRAINING
    return Split(features[:at], labels[:at], features[at:], labels[at:])


def diamonds(chosen: Path | None = None) -> Split:
    """53,794 different diamonds, 9 features, the logarithm of the price in dollars.

    10,000 drawn at random are the test. The file lists 146 diamonds twice, and the copies are
    left out: a test row that is also a memory would be no test. Source: the `diamonds` table of
    ggplot2 (Wickham), as plotnine carries it (MIT licence).
    """
    path = chosen or Path(os.environ.get(_DIAMONDS_VARIABLE) or _DIAMONDS_PATH)
    if not path.is_file():
        raise TableMissing(
            f"{path} is missing. It is in the wheel of plotnine: `pip download --no-deps plotnine"
            f" && unzip plotnine-*.whl {_DIAMONDS_PATH}`, here, or elsewhere and"
            f" {_DIAMONDS_VARIABLE}=... (or --data) says where."
        )
    with path.open(newline="", encoding="utf-8") as file:
        rows = list({tuple(row.values()): row for row in csv.DictReader(file)}.values())
    features = np.array([_stone(row) for row in rows], np.float32)
    prices = np.log([float(row["price"]) for row in rows]).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(rows))
    test, train = order[:_DIAMONDS_TEST], order[_DIAMONDS_TEST:]
    return Split(features[train], prices[train], features[test], prices[test])


def _stone(row: dict[str, str]) -> list[float]:
    """Weight (log carat), proportions, millimetres, and the three grades, the best the highest."""
    return [
        float(np.log(float(row["carat"]))),
        *(float(row[key]) for key in ("depth", "table", "x", "y", "z")),
        float(_CUTS.index(row["cut"])),
        float(_COLOURS.index(row["color"])),
        float(_CLARITIES.index(row["clarity"])),
    ]
