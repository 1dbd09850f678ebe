"""The body of an answer of `.../infer`: a JSON object, and behind it the binary tensors."""

import struct
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from resmem_service.api.endpoint import Content
from resmem_service.api.inference_protocol.datatypes import BYTES, FP32
from resmem_service.api.inference_protocol.outputs import LABEL, NUMBERS
from resmem_service.api.inference_protocol.request import (
    HEADER_LENGTH,
    InferRequest,
    RequestedOutput,
)
from resmem_service.api.model_metadata import ModelMetadata
from resmem_service.api.ranking import best_class, best_classes
from resmem_service.inference.predictions import Predictions

__all__ = ["encode"]

_BINARY: Final = (b"content-type", b"application/octet-stream")
_HEADER_LENGTH: Final = HEADER_LENGTH.lower().encode()

Tensor = tuple[str, list[int], Any]
"""Datatype, shape and elements: float32 `[n, L]`, or strings in row-major order."""


def encode(
    predictions: Predictions, request: InferRequest, metadata: ModelMetadata
) -> bytes | Content:
    """The answer for n rows; JSON alone where no output is to be binary."""
    outputs: list[dict[str, Any]] = []
    binary: list[memoryview] = []
    for wanted in request.outputs:
        datatype, shape, elements = _tensor(predictions, wanted, metadata)
        output: dict[str, Any] = {"name": wanted.name, "datatype": datatype, "shape": shape}
        if wanted.binary:
            raw = _packed(elements) if datatype == BYTES else _little_endian(elements)
            output["parameters"] = {"binary_data_size": raw.nbytes}
            binary.append(raw)
        else:
            output["data"] = elements if datatype == BYTES else elements.ravel()
        outputs.append(output)
    head: dict[str, Any] = {"model_name": metadata.name, "model_version": metadata.version}
    if request.id is not None:
        head["id"] = request.id
    head["parameters"] = {
        "memory_size": predictions.memory_size,
        "memory_revision": predictions.revision,
    }
    head["outputs"] = outputs
    json = orjson.dumps(head, option=orjson.OPT_SERIALIZE_NUMPY)
    if not binary:
        return json
    length = (_HEADER_LENGTH, str(len(json)).encode())
    return Content(b"".join([json, *binary]), (_BINARY, length))


def _tensor(predictions: Predictions, wanted: RequestedOutput, metadata: ModelMetadata) -> Tensor:
    rows = len(predictions)
    if wanted.name == LABEL:
        labels = metadata.labels
        return BYTES, [rows], [labels[index] for index in best_class(predictions.scores)]
    numbers = NUMBERS[metadata.task][wanted.name](predictions)
    if wanted.classes:
        classes = min(wanted.classes, metadata.outputs)
        return BYTES, [rows, classes], _classified(numbers, classes, metadata.labels)
    return FP32, [rows, metadata.outputs], numbers


def _classified(numbers: NDArray[np.float32], count: int, labels: Sequence[str]) -> list[str]:
    """The best classes of each row as `value:index:label`, as Triton writes them."""
    return [
        f"{row[index]!s}:{index}:{labels[index]}"
        for row in numbers
        for index in best_classes(row, count)
    ]


def _packed(elements: Sequence[str]) -> memoryview:
    """Strings of a binary tensor: of each its length in UTF-8, u32, and then itself."""
    packed = {}
    for element in set(elements):  # rows share few labels
        raw = element.encode()
        packed[element] = struct.pack("<I", len(raw)) + raw
    return memoryview(b"".join(map(packed.__getitem__, elements)))


def _little_endian(numbers: NDArray[np.float32]) -> memoryview:
    """The numbers as they are, but for a machine of the other kind."""
    return np.ascontiguousarray(numbers, "<f4").data
