"""What every endpoint with rows does first: it reads a body, admits it and decodes it."""

from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Protocol, TypeVar

from starlette.types import Receive, Scope

from resmem_service.api.admission import Admission
from resmem_service.api.body import read_body
from resmem_service.api.json_budget import check_json_beginning
from resmem_service.api.large_bodies import LARGE_BYTES, LargeBodies
from resmem_service.api.lifecycle import Backend
from resmem_service.api.limits import RequestLimits
from resmem_service.api.model_metadata import ModelMetadata
from resmem_service.inference.rows import Rows
from resmem_service.telemetry.metrics import Metrics

__all__ = ["Intake"]


class _Decoded(Protocol):
    @property
    def rows(self) -> Rows:
        """The rows of the request."""


R = TypeVar("R", bound=_Decoded)


class Intake:
    """Turns the bodies of one endpoint into requests, the large ones beside the event loop."""

    def __init__(self, limits: RequestLimits, metrics: Metrics, large_bodies: LargeBodies) -> None:
        self._limits = limits
        self._on_stage = metrics.on_stage
        self._large_bodies = large_bodies
        self._admission = Admission()

    async def request(
        self,
        scope: Scope,
        receive: Receive,
        backend: Backend,
        decode: Callable[[bytes, ModelMetadata, RequestLimits], R],
        *,
        json_alone: bool = True,
    ) -> R:
        """The request that a body holds.

        Args:
            scope: of the request.
            receive: gives its body.
            backend: is to answer it.
            decode: checks a body against the contract and the model.
            json_alone: False where something other than JSON may follow the JSON.

        Raises:
            QueueFull: the queue has no room for what the body is likely to hold. And whatever
                `read_body` and `decode` raise.
        """
        metadata, limits = backend.metadata, self._limits
        check = None
        if json_alone:
            check = partial(check_json_beginning, metadata=metadata, limits=limits)
        body = await read_body(scope, receive, limits.max_body_bytes, self._large_bodies, check)
        self._admission.check(body, backend.predictor)
        began = perf_counter()
        if len(body) < LARGE_BYTES:
            request = decode(body, metadata, limits)
        else:
            request = await self._large_bodies.run(decode, body, metadata, limits)
        self._on_stage("decode", perf_counter() - began)
        self._admission.note(body, len(request.rows))
        return request
