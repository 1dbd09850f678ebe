"""The bodies of the protocol as OpenAPI shows them; documentation alone, as `api.schemas`.

They are named as the protocol's own page names them, or nearly so.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt

from resmem_service.api.inference_protocol.datatypes import DATATYPES

__all__ = [
    "InferBody",
    "InferenceErrorBody",
    "InferredBody",
    "LiveBody",
    "ModelMetadataBody",
    "ModelReadyBody",
    "ServerMetadataBody",
    "ServerReadyBody",
    "inlined",
]

Datatype = Annotated[str, Field(json_schema_extra={"enum": list(DATATYPES)})]
Parameters = dict[str, StrictBool | StrictInt | StrictFloat | str]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class InputTensorBody(_Body):
    """An input, its elements here or in the binary part."""

    name: str
    shape: list[int] = Field(description="The batch axis first.")
    datatype: Datatype
    parameters: Parameters | None = Field(
        None, description="`binary_data_size`: the bytes that it has in the binary part."
    )
    data: list[Any] | None = Field(None, description="The elements, flat or nested.")


class RequestedOutputBody(_Body):
    """An output that the answer is to have."""

    name: Literal["scores", "value", "base", "correction", "label"]
    parameters: Parameters | None = Field(
        None,
        description="`binary_data`: in the binary part. `classification`: only so many of the best "
        "classes, as strings `value:index:label`.",
    )


class InferBody(_Body):
    """Rows to predict."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "42",
                    "inputs": [
                        {
                            "name": "features",
                            "shape": [2, 4],
                            "datatype": "FP32",
                            "data": [5.1, 3.5, 1.4, 0.2, 6.7, 3.0, 5.2, 2.3],
                        }
                    ],
                    "outputs": [{"name": "scores"}, {"name": "label"}],
                }
            ]
        }
    )

    id: str | None = Field(None, description="The answer repeats it.")
    parameters: Parameters | None = Field(
        None, description="`binary_data_output`: every output goes to the binary part."
    )
    inputs: list[InputTensorBody] = Field(min_length=1)
    outputs: list[RequestedOutputBody] | None = Field(None, description="All of them by default.")


class OutputTensorBody(_Body):
    """An output, its elements here or in the binary part."""

    name: str
    shape: list[int]
    datatype: Literal["FP32", "BYTES"]
    parameters: Parameters | None = None
    data: list[float] | list[str] | None = Field(None, description="The elements, row by row.")


class InferredBody(_Body):
    """Predictions."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: Parameters = Field(
        description="`memory_size` and `memory_revision`: the memory as the prediction saw it."
    )
    outputs: list[OutputTensorBody]


class TensorMetadata(_Body):
    """An input or output of the model."""

    name: str
    datatype: str
    shape: list[int] = Field(description="-1 is an axis of any length; the first is the batch.")


class ModelMetadataBody(_Body):
    """The model that is served."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ServerMetadataBody(_Body):
    """The server, and the extensions of the protocol that it has."""

    name: str
    version: str
    extensions: list[str]


class LiveBody(_Body):
    """The process is up."""

    live: bool


class ServerReadyBody(_Body):
    """Requests are answered."""

    ready: bool


class ModelReadyBody(_Body):
    """The model answers."""

    name: str
    ready: bool


class InferenceErrorBody(_Body):
    """The body of every error response: the protocol's string, our code and field."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "error": "inputs: has shape [2, 3]; each row must be float32 of shape [4]",
                    "code": "invalid_input",
                    "field": "inputs",
                }
            ]
        }
    )

    error: str
    code: str
    field: str | None = None


def inlined(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of a model with every part in its place: it may stand anywhere in a document."""
    schema = model.model_json_schema()
    parts: dict[str, Any] = schema.pop("$defs", {})

    def inline(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return inline(parts[node["$ref"].rpartition("/")[2]])
            return {key: inline(value) for key, value in node.items()}
        return [inline(each) for each in node] if isinstance(node, list) else node

    found: dict[str, Any] = inline(schema)
    return found
