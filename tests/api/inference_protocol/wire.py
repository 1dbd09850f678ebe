"""Requests and answers of the protocol, written and read here without the service's own code."""

import json
import struct
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from tests.api.local_service import LocalService

HEADER_LENGTH = "inference-header-content-length"

NAMES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}


def tensor(name: str, array: NDArray[Any], **more: Any) -> dict[str, Any]:
    """What the JSON says of an array, without its elements."""
    return {
        "name": name,
        "shape": list(array.shape),
        "datatype": NAMES[array.dtype.name],
        **more,
    }


def json_body(inputs: Mapping[str, NDArray[Any]], **more: Any) -> dict[str, Any]:
    """A request in JSON alone."""
    tensors = [tensor(name, array, data=array.ravel().tolist()) for name, array in inputs.items()]
    return {"inputs": tensors, **more}


def binary_body(
    inputs: Mapping[str, NDArray[Any]], *, pad: int = 0, **more: Any
) -> tuple[bytes, dict[str, str]]:
    """A request with binary tensors, and its headers; `pad` bytes of blanks end the JSON."""
    tensors = [
        tensor(name, array, parameters={"binary_data_size": array.nbytes})
        for name, array in inputs.items()
    ]
    return with_binary_part(
        {"inputs": tensors, **more}, b"".join(array.tobytes() for array in inputs.values()), pad=pad
    )


def with_binary_part(
    value: Mapping[str, Any], part: bytes, *, pad: int = 0
) -> tuple[bytes, dict[str, str]]:
    head = json.dumps(value).encode() + b" " * pad
    return head + part, {HEADER_LENGTH: str(len(head))}


def infer(service: LocalService, model: str, body: object, **how: Any) -> httpx.Response:
    return service.post(f"/v2/models/{model}/infer", body, **how)


def arrays(answer: httpx.Response) -> dict[str, NDArray[Any]]:
    """The outputs of an answer, wherever they stand, strings as objects."""
    assert answer.status_code == 200, answer.text
    content = answer.content
    length = answer.headers.get(HEADER_LENGTH)
    at = len(content) if length is None else int(length)
    found: dict[str, NDArray[Any]] = {}
    for output in json.loads(content[:at])["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        assert (size is None) is ("data" in output)
        flat: NDArray[Any]
        if size is None:
            dtype = {"FP32": np.float32, "BYTES": np.object_}[output["datatype"]]
            flat = np.array(output["data"], dtype=dtype)
        elif output["datatype"] == "BYTES":
            flat = np.array(strings(content[at : at + size]), dtype=np.object_)
        else:
            flat = np.frombuffer(content[at : at + size], "<f4")
        found[output["name"]] = flat.reshape(output["shape"])
        assert flat.size == prod(output["shape"])
        at += size or 0
    assert at == len(content)
    return found


def strings(raw: bytes) -> Sequence[str]:
    found, at = [], 0
    while at < len(raw):
        (length,) = struct.unpack_from("<I", raw, at)
        found.append(raw[at + 4 : at + 4 + length].decode())
        at += 4 + length
    return found


def error(
    answer: httpx.Response, status: int, code: str, *, says: str = "", field: str = ""
) -> None:
    """The answer is this refusal, in the protocol's shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) <= {"error", "code", "field"}
    assert body["code"] == code
    assert says in body["error"], body["error"]
    assert body.get("field", "") == field
    assert body["error"].startswith(f"{field}: " if field else "")
