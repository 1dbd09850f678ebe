"""The surface: every route, who may use it and how it may answer, each once."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from service.api.auth import Scope
from service.telemetry.metrics import Series

__all__ = ["OTHER", "REASONS", "ROUTES", "Route", "series", "template_of"]

OTHER: Final = "other"
"""The route label of every path that is none of ours."""

REASONS: Final = (
    "malformed_body",
    "unauthorized",
    "forbidden",
    "not_found",
    "memory_not_found",
    "method_not_allowed",
    "reload_failed",
    "body_too_large",
    "too_many_rows",
    "invalid_input",
    "queue_full",
    "not_ready",
    "journal_unavailable",
    "internal",
)

_MODEL_ROWS: Final = (400, 413, 422, 429, 500, 503)


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path."""

    method: str
    path: str
    scope: Scope | None
    """The scope that a key must have; None is open to all."""
    success: int
    errors: tuple[int, ...] = ()

    @property
    def codes(self) -> tuple[int, ...]:
        """Every status that the route may answer with."""
        return (self.success, *((401, 403) if self.scope else ()), *self.errors)


ROUTES: Final = (
    Route("POST", "/predict", "predict", 200, _MODEL_ROWS),
    Route("POST", "/memorize", "memorize", 201, (*_MODEL_ROWS, 507)),
    Route("GET", "/memories", "memorize", 200, (422, 500, 503)),
    Route("DELETE", "/memories", "admin", 200, (422, 500, 503, 507)),
    Route("GET", "/memories/{id}", "memorize", 200, (404, 422, 500, 503)),
    Route("DELETE", "/memories/{id}", "memorize", 200, (404, 422, 500, 503, 507)),
    Route("GET", "/model", "predict", 200, (500, 503)),
    Route("POST", "/admin/reload", "admin", 200, (409, 500, 503)),
    Route("GET", "/healthz", None, 200),
    Route("GET", "/readyz", None, 200, (503,)),
    Route("GET", "/metrics", None, 200),
    Route("GET", "/docs", None, 200),
    Route("GET", "/openapi.json", None, 200),
)

_TEMPLATES: Final = {route.path: route.path for route in ROUTES}
_PREFIXES: Final = {
    route.path.partition("{")[0]: route.path for route in ROUTES if "{" in route.path
}


def template_of(path: str) -> str:
    """The template that a path matches, so that metrics have few labels; else `OTHER`."""
    template = _TEMPLATES.get(path)
    if template is not None and "{" not in template:
        return template
    for prefix, template in _PREFIXES.items():
        if path.startswith(prefix):
            return template
    return OTHER


def series() -> Iterator[Series]:
    """The requests that metrics expect."""
    for route in ROUTES:
        for code in route.codes:
            yield route.path, route.method, str(code)
    yield OTHER, "GET", "404"
