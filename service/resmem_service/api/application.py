"""The ASGI app: every route with its handler and its documentation, inside the middleware."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request, Response, Security
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from resmem_service import __version__
from resmem_service.api.admin import AdminRoutes, Reload
from resmem_service.api.auth import KeyRing
from resmem_service.api.errors import raise_as_ours
from resmem_service.api.id_path import ID_PATH
from resmem_service.api.inference_protocol import schemas as inference_protocol
from resmem_service.api.inference_protocol.endpoint import InferEndpoint, VersionInferEndpoint
from resmem_service.api.inference_protocol.errors import is_spoken_at
from resmem_service.api.inference_protocol.metadata import MetadataRoutes
from resmem_service.api.large_bodies import LargeBodies
from resmem_service.api.lifecycle import Lifecycle
from resmem_service.api.limits import RequestLimits
from resmem_service.api.memories import MemoriesRoutes
from resmem_service.api.memorize import MemorizeEndpoint
from resmem_service.api.middleware import ErrorCapture, RequestMiddleware
from resmem_service.api.origins import Origins
from resmem_service.api.predict import PredictEndpoint
from resmem_service.api.routes import EVERYWHERE, ROUTES, Route
from resmem_service.api.schemas import (
    ErrorBody,
    ForgottenBody,
    HealthBody,
    MemoriesBody,
    MemorizeBody,
    MemorizedBody,
    MemoryBody,
    ModelBody,
    PredictBody,
    PredictedBody,
    ReloadedBody,
)
from resmem_service.api.status import StatusRoutes
from resmem_service.telemetry.metrics import Metrics

__all__ = ["build_api"]

Handler = Callable[..., Any]
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]

_DESCRIPTION: Final = """\
An ONNX base model answers, a memory of its past mistakes corrects the answer, and the memory learns
while it serves (ResMem, Yang et al., NeurIPS 2023).

Every error has the body `{"error": {"code", "message", "field"}}`, below `/v2`, which is the Open
Inference Protocol, `{"error": "message", "code", "field"}`. Where keys are configured, send one as
`Authorization: Bearer KEY`.
"""

_BEARER: Final = Security(
    HTTPBearer(auto_error=False, scheme_name="key", description="A key with the route's scope.")
)
_PATHS: Final = {"/memories/{id}": ID_PATH}
_MODEL: Final = "/v2/models/{name}"
_VERSION: Final = f"{_MODEL}/versions/{{version}}"


class _Api(FastAPI):
    """FastAPI inside `RequestMiddleware`, which answers the hot endpoints without it.

    Its own outer layers and its look-up of OpenTelemetry providers cost 10 us of CPU a request.
    """

    outer: RequestMiddleware

    def setup(self) -> None:
        """Called by FastAPI; of two routes with the same path the first one answers."""
        self._document: tuple[str, bytes] | None = None
        self.add_route("/openapi.json", self._describe, include_in_schema=False)
        super().setup()

    async def _describe(self, request: Request) -> Response:
        """The OpenAPI document, kept as it is sent: to encode it takes milliseconds."""
        root_path: str = request.scope.get("root_path", "").rstrip("/")
        if self._document is None or self._document[0] != root_path:
            content = self.openapi()
            if root_path:
                content = content | {"servers": [{"url": root_path}]}
            self._document = root_path, orjson.dumps(content)
        return Response(self._document[1], media_type="application/json")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.outer(scope, receive, send)

    async def routed(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers what the middleware does not answer itself."""
        await Starlette.__call__(self, scope, receive, send)


def build_api(
    lifecycle: Lifecycle,
    limits: RequestLimits,
    keys: KeyRing,
    metrics: Metrics,
    *,
    origins: Origins = Origins(),  # noqa: B008 - immutable
    reload: Reload,
    lifespan: Lifespan,
) -> FastAPI:
    """Builds the app of one service; `lifespan` gives the lifecycle its backend."""
    app = _Api(
        title="ResMem service",
        version=__version__,
        description=_DESCRIPTION,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    large_bodies = LargeBodies()
    predict = PredictEndpoint(lifecycle, limits, metrics, large_bodies)
    memorize = MemorizeEndpoint(lifecycle, limits, metrics, large_bodies)
    infer = InferEndpoint(lifecycle, limits, metrics, large_bodies)
    infer_version = VersionInferEndpoint(lifecycle, limits, metrics, large_bodies)
    endpoints = (predict, memorize, infer, infer_version)
    metadata = MetadataRoutes(lifecycle)
    memories = MemoriesRoutes(lifecycle)
    status = StatusRoutes(lifecycle, metrics)
    admin = AdminRoutes(lifecycle, reload)
    handlers: dict[tuple[str, str], tuple[Handler, type[BaseModel] | None]] = {
        ("POST", "/predict"): (predict.respond, PredictedBody),
        ("POST", "/memorize"): (memorize.respond, MemorizedBody),
        ("GET", "/memories"): (memories.list, MemoriesBody),
        ("DELETE", "/memories"): (memories.forget_source, ForgottenBody),
        ("GET", "/memories/{id}"): (memories.find, MemoryBody),
        ("DELETE", "/memories/{id}"): (memories.forget, ForgottenBody),
        ("GET", "/model"): (status.model, ModelBody),
        ("POST", "/admin/reload"): (admin.reload, ReloadedBody),
        ("GET", "/healthz"): (status.healthz, HealthBody),
        ("GET", "/readyz"): (status.readyz, HealthBody),
        ("GET", "/metrics"): (status.metrics, None),
        ("GET", "/v2"): (metadata.server, inference_protocol.ServerMetadataBody),
        ("GET", "/v2/health/live"): (metadata.live, inference_protocol.LiveBody),
        ("GET", "/v2/health/ready"): (metadata.ready, inference_protocol.ServerReadyBody),
        ("GET", _MODEL): (metadata.model, inference_protocol.ModelMetadataBody),
        ("GET", f"{_MODEL}/ready"): (metadata.model_ready, inference_protocol.ModelReadyBody),
        ("POST", infer.path): (infer.respond, inference_protocol.InferredBody),
        ("GET", _VERSION): (metadata.model, inference_protocol.ModelMetadataBody),
        ("GET", f"{_VERSION}/ready"): (metadata.model_ready, inference_protocol.ModelReadyBody),
        ("POST", infer_version.path): (infer_version.respond, inference_protocol.InferredBody),
    }
    descriptions = {each.path: each.__doc__ for each in endpoints}
    for route in ROUTES:
        handler, body = handlers.get((route.method, route.path), (None, None))
        if handler is not None:  # the documentation's own routes are FastAPI's
            _add(app, route, handler, body, descriptions.get(route.path))
    raise_as_ours(app)
    app.add_middleware(ErrorCapture)
    app.outer = RequestMiddleware(
        app.routed,
        lifecycle=lifecycle,
        endpoints=endpoints,
        keys=keys,
        origins=origins,
        metrics=metrics,
    )
    return app


def _add(
    app: FastAPI,
    route: Route,
    handler: Handler,
    body: type[BaseModel] | None,
    description: str | None,
) -> None:
    error_body = inference_protocol.InferenceErrorBody if is_spoken_at(route.path) else ErrorBody
    answers: dict[int | str, dict[str, Any]] = {
        code: {"model": error_body, "description": HTTPStatus(code).phrase}
        for code in sorted({*route.codes, *EVERYWHERE})
        if code >= 400
    }
    if body is None:
        answers[route.success] = {"content": {"text/plain": {"schema": {"type": "string"}}}}
    else:
        answers[route.success] = {"model": body, "description": HTTPStatus(route.success).phrase}
    app.add_api_route(
        _PATHS.get(route.path, route.path),
        handler,
        methods=[route.method],
        status_code=route.success,
        response_class=Response,
        response_model=None,
        responses=answers,
        description=description,
        summary=f"{route.method} {route.path}",
        operation_id=_operation_id(route),
        dependencies=[_BEARER] if route.scope else None,
        openapi_extra=_what_handlers_read(route),
    )


def _operation_id(route: Route) -> str:
    words = route.path.replace("{", "by_").replace("}", "").strip("/").split("/")
    return "_".join([route.method.lower(), *words])


def _what_handlers_read(route: Route) -> dict[str, Any]:
    """The handlers that read path and body themselves have FastAPI know nothing of them."""
    read: dict[str, Any] = {}
    if is_spoken_at(route.path):
        read["parameters"] = [
            {"name": part[1:-1], "in": "path", "required": True, "schema": {"type": "string"}}
            for part in route.path.split("/")
            if part.startswith("{")
        ]
    bodies: dict[str, type[BaseModel]] = {
        "/predict": PredictBody,
        "/memorize": MemorizeBody,
        InferEndpoint.path: inference_protocol.InferBody,
        VersionInferEndpoint.path: inference_protocol.InferBody,
    }
    body = bodies.get(route.path)
    if body is not None:
        content = {"application/json": {"schema": inference_protocol.inlined(body)}}
        if body is inference_protocol.InferBody:
            content["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
        read["requestBody"] = {"required": True, "content": content}
    return read
