"""`POST /predict`: the request, checked, and the endpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Final, Self

from starlette.types import Receive, Scope

from resmem_service.api.body import decode_object
from resmem_service.api.disconnect_watcher import DisconnectWatcher
from resmem_service.api.endpoint import Endpoint
from resmem_service.api.intake import Intake
from resmem_service.api.json_budget import check_json_size
from resmem_service.api.large_bodies import LargeBodies
from resmem_service.api.lifecycle import Lifecycle
from resmem_service.api.limits import RequestLimits
from resmem_service.api.model_metadata import ModelMetadata
from resmem_service.api.prediction_body import (
    FIELDS,
    Selection,
    encode_predictions,
    nearest_memories,
)
from resmem_service.errors import InvalidInput
from resmem_service.excerpt import excerpt
from resmem_service.inference.rows import Rows
from resmem_service.telemetry.metrics import Metrics

__all__ = ["PredictEndpoint", "PredictRequest"]

_KEYS: Final = ("inputs", "neighbours", "top", "fields")


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """Rows to predict, and what of the predictions is wanted."""

    rows: Rows
    selection: Selection

    @classmethod
    def decode(cls, body: bytes, metadata: ModelMetadata, limits: RequestLimits) -> Self:
        """Checks a body against the contract and the model.

        Raises:
            MalformedBody, InvalidInput, TooManyRows: naming the field at fault.
        """
        check_json_size(body, metadata, limits)
        value = decode_object(body, _KEYS)
        if "inputs" not in value:
            raise InvalidInput("is missing", "inputs")
        limits.check_rows(value["inputs"])
        # What is cheap to refuse is refused before the rows are converted.
        selection = (
            _DEFAULTS[metadata.task] if len(value) == 1 else _selection(value, metadata, limits)
        )
        return cls(Rows.convert(value["inputs"], metadata.inputs), selection)


class PredictEndpoint(Endpoint):
    """Base prediction plus residual correction, for each row."""

    path = "/predict"

    def __init__(
        self,
        lifecycle: Lifecycle,
        limits: RequestLimits,
        metrics: Metrics,
        large_bodies: LargeBodies,
    ) -> None:
        self._lifecycle = lifecycle
        self._intake = Intake(limits, metrics, large_bodies)
        self._on_stage = metrics.on_stage
        self._watcher = DisconnectWatcher()

    async def answer(self, scope: Scope, receive: Receive) -> bytes:
        """The JSON body of the answer; whatever is wrong is raised."""
        backend = self._lifecycle.backend()
        request = await self._intake.request(scope, receive, backend, PredictRequest.decode)
        predictor = backend.predictor
        predictions = await self._watcher.wait(predictor.predict(request.rows), receive)
        neighbours = None
        if request.selection.neighbours:
            neighbours = await nearest_memories(
                predictions.correction, predictor.memory, request.selection.neighbours
            )
        began = perf_counter()
        encoded = encode_predictions(predictions, neighbours, request.selection, backend.metadata)
        self._on_stage("encode", perf_counter() - began)
        return encoded


_DEFAULTS: Final = {task: Selection(fields=frozenset(names)) for task, names in FIELDS.items()}


def _selection(
    value: Mapping[str, object], metadata: ModelMetadata, limits: RequestLimits
) -> Selection:
    neighbours = value.get("neighbours", 0)
    if type(neighbours) is not int or not 0 <= neighbours <= limits.max_neighbours:
        raise InvalidInput(
            f"is {excerpt(neighbours)}; it must be a whole number from 0 to "
            f"{limits.max_neighbours} (max_neighbours)",
            "neighbours",
        )
    top = value.get("top")
    if top is not None:
        if metadata.task == "regression":
            raise InvalidInput("a regression has no classes to choose from", "top")
        if type(top) is not int or top < 1:
            raise InvalidInput(f"is {excerpt(top)}; it must be a whole number from 1", "top")
    return Selection(_fields(value.get("fields"), metadata), neighbours, top)


def _fields(value: object, metadata: ModelMetadata) -> frozenset[str]:
    known = FIELDS[metadata.task]
    if value is None:
        return frozenset(known)
    if not isinstance(value, list):
        wanted = f"a list of some of: {', '.join(known)}"
        raise InvalidInput(f"is {excerpt(value)}; it must be {wanted}", "fields")
    for name in value:
        if name not in known:
            raise InvalidInput(
                f"has {excerpt(name)}; each must be one of: {', '.join(known)}", "fields"
            )
    return frozenset(value)
