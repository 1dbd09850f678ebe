"""The bodies of requests and answers as OpenAPI shows them.

Documentation alone: the hot path checks requests itself, in one pass and with the model's own
shapes, which no static schema knows. The tests hold real answers against these models.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt

from resmem_service.api.memorize import LARGEST_WEIGHT, LONGEST_NAME

__all__ = [
    "ErrorBody",
    "ForgottenBody",
    "HealthBody",
    "MemoriesBody",
    "MemorizeBody",
    "MemorizedBody",
    "MemoryBody",
    "ModelBody",
    "PredictBody",
    "PredictedBody",
    "ReloadedBody",
]

Number = StrictFloat | StrictInt
Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
Value = Number | list[Number]
Nested = Annotated[
    list[Any] | dict[str, list[Any]],
    Field(
        description="One nested list for each row, in the model's input shape (see `/model`); for "
        "a model with several inputs an object with such a list under the name of each."
    ),
]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PredictBody(_Body):
    """Rows to predict."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"inputs": [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]], "neighbours": 2},
                {"inputs": [[5.1, 3.5, 1.4, 0.2]], "fields": ["label", "scores"]},
            ]
        }
    )

    inputs: Nested
    neighbours: int = Field(0, ge=0, description="How many neighbours to return for each row.")
    top: int | None = Field(
        None, ge=1, description="Only this many of the best classes; for wide outputs."
    )
    fields: list[Literal["label", "scores", "value", "base", "correction"]] | None = Field(
        None, description="Only these parts of each prediction; all of them by default."
    )


class ModelName(_Body):
    """Which model answered."""

    name: str
    version: str


class MemoryUsed(_Body):
    """The memory as the prediction saw it."""

    size: int
    revision: int
    used: bool


class LabelAndScores(_Body):
    """The prediction of the base model alone."""

    label: str
    scores: list[float]


class TopClass(_Body):
    """One of the best classes."""

    label: str
    score: float | None = None
    base: float | None = None
    correction: float | None = None


class NeighbourBody(_Body):
    """A memory that took part in the prediction; the nearest one comes first."""

    id: str
    distance: float = Field(description="Euclidean distance between the embeddings.")
    weight: float = Field(description="Its weight in the correction.")
    target: str | Value
    source: str | None


class Classified(_Body):
    """One row of a classification; the keys that were asked for."""

    label: str | None = None
    scores: list[float] | None = Field(
        None, description="base + correction; they sum to 1 but may leave [0, 1]."
    )
    base: LabelAndScores | None = None
    correction: list[float] | None = None
    top: list[TopClass] | None = None
    neighbours: list[NeighbourBody] | None = None


class Regressed(_Body):
    """One row of a regression: numbers, or lists where the model has several outputs."""

    value: Value | None = None
    base: Value | None = None
    correction: Value | None = None
    neighbours: list[NeighbourBody] | None = None


class PredictedBody(_Body):
    """One prediction for each row, in order."""

    model: ModelName
    memory: MemoryUsed
    predictions: list[Classified] | list[Regressed]


class MemorizeBody(_Body):
    """Rows to learn: all of them are kept, or none."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "inputs": [[6.7, 3.0, 5.2, 2.3]],
                    "targets": ["virginica"],
                    "ids": ["flower-17"],
                    "weights": [2.0],
                    "source": "greenhouse",
                }
            ]
        }
    )

    inputs: Nested
    targets: list[str | Value] = Field(
        description="A class name or index for each row; a number, or a list, for regression."
    )
    ids: list[Name | None] | None = Field(
        None, description="The same id with the same content changes nothing, with other content "
        "it replaces; null has the service make one.",
    )  # fmt: skip
    weights: list[Annotated[float, Field(gt=0, le=LARGEST_WEIGHT)]] | None = Field(
        None,
        description="Importance; 1 by default. See `teaching_weight` of `/model`, and `max_weight` "
        "of its memory limits.",
    )
    source: Name | None = Field(None, description="By which the rows can be forgotten together.")


class MemoryState(_Body):
    """The memory after the change."""

    size: int
    revision: int


class MemorizedBody(_Body):
    """The rows are durable and used by the next prediction."""

    ids: list[str]
    created: int
    replaced: int
    memory: MemoryState


class MemoryBody(_Body):
    """One memory."""

    id: str
    source: str | None
    target: str | Value
    weight: float
    created: datetime | None = Field(description="Null for memories of the bundle.")


class MemoriesBody(_Body):
    """A page of memories, oldest first."""

    memories: list[MemoryBody]
    next: str | None = Field(description="`after` for the next page, opaque; null on the last one.")


class ForgottenBody(_Body):
    """The memories are forgotten: the next prediction does not use them."""

    forgotten: int
    memory: MemoryState


class InputBody(_Body):
    """One input of the model."""

    name: str
    dtype: str
    shape: list[int | None] = Field(description="Without the batch axis; null is any length.")


class EmbeddingBody(_Body):
    """The embedding space in which neighbours are searched."""

    dim: int
    metric: str


class ParametersBody(_Body):
    """What `fit` chose."""

    k: int
    sigma: float
    temperature: float
    alpha: float
    ef: int


class MemoryLimits(_Body):
    """The settings that bound the memory; null where there is no bound."""

    capacity_rows: int | None
    capacity_bytes: int | None
    max_age_s: float | None
    growing_bytes: int
    max_growing_bytes: int
    max_segment_rows: int
    busy_ms: int
    max_weight: float = Field(description="Largest weight that `/memorize` takes.")


class MemoryStatus(_Body):
    """The current state of the memory."""

    size: int
    revision: int
    sealed_rows: int
    growing_rows: int
    segments: int
    bytes: int
    journal: str | None = Field(
        description="The database that keeps the journal, and its version; null without a journal."
    )
    limits: MemoryLimits


class ModelBody(_Body):
    """The model that is served."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    name: str
    version: str
    task: Literal["classification", "regression"]
    inputs: list[InputBody]
    classes: list[str] | None
    outputs: int
    embedding: EmbeddingBody
    parameters: ParametersBody
    teaching_weight: float = Field(
        description="A weight for `/memorize` that turns a wrong answer right."
    )
    scores: list[dict[str, Any]] = Field(description="Measured by `fit` on held-out rows.")
    provider: str
    checksums: dict[str, str] = Field(description="SHA-256 of each file of the bundle.")
    memory: MemoryStatus


class ReloadedBody(_Body):
    """The version that the store marks current is served by every worker."""

    model: ModelName
    previous: ModelName = Field(description="What was served before; the same, if it was current.")
    pinned: bool = Field(
        description="Whether the setting `model` names a version, which a reload then reads again."
    )


class DegradationBody(_Body):
    """Something that is damaged or does not work, while requests are answered."""

    reason: str
    message: str


class HealthBody(_Body):
    """Requests are answered; `degraded` names what is damaged or does not work all the same."""

    status: Literal["ok", "ready"]
    degraded: list[DegradationBody] | None = None


class ErrorDetail(_Body):
    """What is wrong with the request, and in which field."""

    code: str
    message: str
    field: str | None = None


class ErrorBody(_Body):
    """The body of every error response."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "error": {
                        "code": "invalid_input",
                        "message": "row 0 has shape [3]; each row must be float32 of shape [4]",
                        "field": "inputs",
                    }
                }
            ]
        }
    )

    error: ErrorDetail
