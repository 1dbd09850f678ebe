"""The model that all of them serve."""

import os
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

__all__ = ["BATCH", "MODEL", "DigitsModel"]

MODEL = "BENCHMARK_MODEL"
"""The environment variable with the path of the ONNX file."""
BATCH = "BENCHMARK_BATCH"
"""The one with the most requests of a batch; 1 is no batches."""


class DigitsModel:
    """Rows of 64 pixels in, 10 probabilities out.

    One thread: the model takes microseconds, and a pool of threads that wait for work would burn
    CPU time that is not the server's fault.
    """

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(
            os.environ[MODEL], options, providers=["CPUExecutionProvider"]
        )

    def scores(self, rows: Any) -> NDArray[np.float32]:
        """Probabilities `[n, 10]` of rows `[n, 64]`, given as lists or as an array."""
        found: NDArray[np.float32] = self._session.run(
            ["scores"], {"pixels": np.asarray(rows, np.float32)}
        )[0]
        return found
