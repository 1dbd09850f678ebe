"""The benchmark of binary tensors: every way sends the same rows."""

import numpy as np
import pytest
from resmem_service.api.inference_protocol.request import InferRequest
from resmem_service.api.limits import RequestLimits
from resmem_service.api.model_metadata import ModelMetadata
from resmem_service.api.predict import PredictRequest
from resmem_service.inference.rows import Rows
from resmem_service.inference.tensor_spec import TensorSpec

from benchmarks.speed.binary import median_ratio, requests

METADATA = ModelMetadata(
    name="m",
    version="1",
    task="classification",
    inputs=(TensorSpec("x", "float32", (3,)),),
    classes=None,
    outputs=2,
    provider="cpu",
    embedding={},
    parameters={},
    teaching_weight=1.0,
    max_weight=4.0,
    scores=[],
    checksums={},
    memory_limits={},
)


@pytest.mark.parametrize("way", range(4))
def test_every_way_sends_the_same_rows(way: int) -> None:
    batches = [Rows({"x": np.full((2, 3), number, np.float32)}) for number in range(3)]
    for batch, (path, body, headers) in zip(
        batches, list(requests("m", batches).values())[way], strict=True
    ):
        if path == "/predict":
            rows = PredictRequest.decode(body, METADATA, RequestLimits()).rows
        else:
            assert path == "/v2/models/m/infer"
            length = headers.get("inference-header-content-length")
            rows = InferRequest.decode(
                body,
                METADATA,
                RequestLimits(),
                header_length=None if length is None else length.encode(),
            ).rows
        assert np.array_equal(rows.arrays["x"], batch.arrays["x"])


def test_a_ratio_is_the_median_over_rounds() -> None:
    assert median_ratio([1, 4, 30], [1, 2, 3]) == 2
