from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

instruction_set: str

class CorruptGraph(ValueError): ...

class Codec:
    def __init__(self, kind: str, width: int, kept: int = 0) -> None: ...
    @property
    def width(self) -> int: ...
    @property
    def stride(self) -> int: ...

class Segment:
    @property
    def rows(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def dead_rows(self) -> int: ...
    def forget(self, row: int) -> bool: ...
    def forget_until(self, sequence: int) -> None: ...
    def lives(self, row: int) -> bool: ...
    def find(self, sequence: int) -> int: ...
    def sequence(self, row: int) -> int: ...

class SealedSegment(Segment):
    def __init__(
        self,
        graph: NDArray[np.uint8],
        codes: NDArray[np.uint8],
        weights: NDArray[np.float32],
        sequences: NDArray[np.int64],
        dim: int,
        codec: Codec,
        name: str,
    ) -> None: ...

class GrowingSegment(Segment):
    def __init__(self, capacity: int, dim: int, codec: Codec) -> None: ...
    @property
    def capacity(self) -> int: ...
    def append(
        self,
        vectors: NDArray[np.float32],
        codes: NDArray[np.uint8],
        weights: NDArray[np.float32],
        sequences: NDArray[np.int64],
        start: int = 0,
    ) -> int: ...
    def copy_after(self, sequence: int) -> GrowingSegment: ...

def correct(
    segments: Sequence[Segment],
    queries: NDArray[np.float32],
    width: int,
    k: int,
    ef: int,
    sigma: float,
    alpha: float,
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]: ...
