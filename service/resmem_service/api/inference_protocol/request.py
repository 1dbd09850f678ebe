"""The body of `.../infer`: a JSON object, and behind it the binary tensors that it tells of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from resmem_service.api.body import decode_json, refuse_repeated_keys
from resmem_service.api.inference_protocol.json_values import check_keys, parameters_of
from resmem_service.api.inference_protocol.outputs import NUMBERS, output_names
from resmem_service.api.inference_protocol.tensors import InputTensor
from resmem_service.api.json_budget import check_json_size
from resmem_service.api.limits import RequestLimits
from resmem_service.api.model_metadata import ModelMetadata
from resmem_service.errors import InvalidInput, MalformedBody
from resmem_service.excerpt import excerpt
from resmem_service.inference.rows import Rows

__all__ = ["HEADER_LENGTH", "InferRequest", "RequestedOutput"]

HEADER_LENGTH: Final = "Inference-Header-Content-Length"
"""The HTTP header that says how many bytes of the body are JSON."""

_KEYS: Final = frozenset({"id", "parameters", "inputs", "outputs"})
_LONGEST_ID: Final = 1024
_OUTPUT_KEYS: Final = frozenset({"name", "parameters"})


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output tensor that the answer is to have."""

    name: str
    binary: bool
    """Behind the JSON, not in it."""
    classes: int = 0
    """Only so many of the best classes of each row, as strings; 0: the numbers as they are."""


@dataclass(frozen=True, slots=True)
class InferRequest:
    """Rows to predict, and how to answer."""

    rows: Rows
    outputs: Sequence[RequestedOutput]
    id: str | None
    """The client's own, which the answer repeats."""

    @classmethod
    def decode(
        cls,
        body: bytes,
        metadata: ModelMetadata,
        limits: RequestLimits,
        *,
        header_length: bytes | None,
    ) -> Self:
        """Checks a body against the protocol and the model; `header_length` as the header has it.

        Raises:
            MalformedBody: the JSON is none, or does not end where it should.
            InvalidInput, TooManyRows: naming the field at fault.
        """
        end = len(body) if header_length is None else _json_bytes(header_length, body)
        json = body if end == len(body) else memoryview(body)[:end]
        check_json_size(json, metadata, limits)
        value = decode_json(json)
        if not isinstance(value, dict):
            raise InvalidInput("the request must be a JSON object")
        check_keys(value, _KEYS, None)
        refuse_repeated_keys(body, _count_keys(value), end)
        id = _id(value.get("id"))
        # What is cheap to refuse is refused before the elements are converted.
        outputs = _outputs(value, metadata)
        tensors = _tensors(value.get("inputs"), body, end, limits)
        arrays = {
            tensor.name: tensor.of_binary(body, start) if tensor.data is None else tensor.of_json()
            for tensor, start in tensors
        }
        return cls(Rows.convert(arrays, metadata.inputs), outputs, id)


def _count_keys(request: Mapping[str, Any]) -> int:
    """Keys of the objects that the protocol has; parameters of others may hold more."""
    objects = [request]
    for key in ("inputs", "outputs"):
        tensors = request.get(key)
        if isinstance(tensors, list):
            objects += [each for each in tensors if isinstance(each, dict)]
    found = [each.get("parameters") for each in objects]
    return sum(map(len, objects)) + sum(len(each) for each in found if isinstance(each, dict))


def _json_bytes(header: bytes, body: bytes) -> int:
    length = int(header) if header.isdigit() and len(header) < 20 else 0
    if not 0 < length <= len(body):
        raise MalformedBody(
            f"is {excerpt(header, 40)}; it must say how many of the {len(body)} bytes of the body "
            "are JSON, at least 1",
            HEADER_LENGTH,
        )
    return length


def _id(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidInput(f"is {excerpt(value)}; it must be a string", "id")
    if len(value) > _LONGEST_ID:  # the answer repeats it
        raise InvalidInput(f"has {len(value)} characters; at most {_LONGEST_ID} are taken", "id")
    return value


def _tensors(
    value: object, body: bytes, end: int, limits: RequestLimits
) -> list[tuple[InputTensor, int]]:
    """The input tensors, each with its place in the body if it is binary."""
    if not isinstance(value, list) or not value:
        raise InvalidInput(
            f"is {excerpt(value)}; it must be a list of tensors, one for each input of the model",
            "inputs",
        )
    tensors, at = [], end
    for entry in value:
        tensor, size = InputTensor.read(entry)
        limits.check_row_count(tensor.shape[0])
        tensors.append((tensor, at))
        at += size
    if len({tensor.name for tensor, _ in tensors}) < len(tensors):
        raise InvalidInput("an input is given twice", "inputs")
    if at != len(body):
        raise InvalidInput(
            f"the inputs have {at - end} bytes in the binary part, which is {len(body) - end} long",
            "inputs",
        )
    return tensors


def _outputs(value: Mapping[str, Any], metadata: ModelMetadata) -> Sequence[RequestedOutput]:
    parameters = parameters_of(value, None)
    binary = _flag(parameters, "binary_data_output", False, "parameters")
    wanted = value.get("outputs")
    if wanted is None or wanted == []:
        return [RequestedOutput(name, binary) for name in output_names(metadata.task)]
    if not isinstance(wanted, list):
        raise InvalidInput(f"is {excerpt(wanted)}; it must be a list of tensors", "outputs")
    outputs = [_output(entry, binary, metadata) for entry in wanted]
    if len({output.name for output in outputs}) < len(outputs):
        raise InvalidInput("an output is asked for twice", "outputs")
    return outputs


def _output(value: object, binary: bool, metadata: ModelMetadata) -> RequestedOutput:
    names = output_names(metadata.task)
    if not isinstance(value, dict):
        raise InvalidInput(f"has {excerpt(value)}; each output must be an object", "outputs")
    name = value.get("name")
    if name not in names:
        raise InvalidInput(
            f"the model has no output {excerpt(name)}; it has: {', '.join(names)}", "outputs"
        )
    field = f"outputs.{name}"
    check_keys(value, _OUTPUT_KEYS, field)
    parameters = parameters_of(value, field)
    classes = parameters.get("classification", 0)
    if type(classes) is not int or classes < 0:
        raise InvalidInput(
            f"classification is {excerpt(classes)}; it must be a whole number from 0", field
        )
    if classes and (metadata.task != "classification" or name not in NUMBERS["classification"]):
        raise InvalidInput("has no classes to choose from", field)
    return RequestedOutput(name, _flag(parameters, "binary_data", binary, field), classes)


def _flag(parameters: Mapping[str, Any], key: str, otherwise: bool, field: str) -> bool:
    value = parameters.get(key, otherwise)
    if not isinstance(value, bool):
        raise InvalidInput(f"{key} is {excerpt(value)}; it must be true or false", field)
    return value
