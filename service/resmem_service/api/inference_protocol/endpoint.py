"""`POST /v2/models/{name}[/versions/{version}]/infer`."""

from functools import partial
from time import perf_counter

from starlette.types import Receive, Scope

from resmem_service.api.disconnect_watcher import DisconnectWatcher
from resmem_service.api.endpoint import Content, Endpoint
from resmem_service.api.inference_protocol.address import check_model, model_of
from resmem_service.api.inference_protocol.request import HEADER_LENGTH, InferRequest
from resmem_service.api.inference_protocol.response import encode
from resmem_service.api.intake import Intake
from resmem_service.api.large_bodies import LargeBodies
from resmem_service.api.lifecycle import Lifecycle
from resmem_service.api.limits import RequestLimits
from resmem_service.errors import MalformedBody
from resmem_service.telemetry.metrics import Metrics

__all__ = ["InferEndpoint", "VersionInferEndpoint"]

_HEADER_LENGTH = HEADER_LENGTH.lower().encode()


class InferEndpoint(Endpoint):
    """Base prediction plus residual correction, for each row of the input tensors.

    Answers with `scores`, `base`, `correction` and `label`, a regression with `value`, `base` and
    `correction`; `outputs` chooses among them. Tensors stand in the JSON, or behind it as the
    binary tensor data extension has it.
    """

    path = "/v2/models/{name}/infer"

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

    async def answer(self, scope: Scope, receive: Receive) -> bytes | Content:
        """The body of the answer; whatever is wrong is raised."""
        backend = self._lifecycle.backend()
        check_model(backend.metadata, *model_of(scope["path"]))
        header_length = _header_length(scope)
        request = await self._intake.request(
            scope,
            receive,
            backend,
            partial(InferRequest.decode, header_length=header_length),
            json_alone=header_length is None,
        )
        predicted = backend.predictor.predict(request.rows)
        predictions = await self._watcher.wait(predicted, receive)
        began = perf_counter()
        encoded = encode(predictions, request, backend.metadata)
        self._on_stage("encode", perf_counter() - began)
        return encoded


class VersionInferEndpoint(InferEndpoint):
    """The same, of a version asked for by its number: 404 if another one is served."""

    path = "/v2/models/{name}/versions/{version}/infer"


def _header_length(scope: Scope) -> bytes | None:
    found = [value for name, value in scope["headers"] if name == _HEADER_LENGTH]
    if len(found) > 1:
        raise MalformedBody(f"is there {len(found)} times; send it once", HEADER_LENGTH)
    return found[0] if found else None
