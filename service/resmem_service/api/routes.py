"""Every route: who may use it and which statuses it may answer with, each once."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from resmem_service.api.auth import Scope
from resmem_service.api.statuses import INTERNAL, STATUSES
from resmem_service.telemetry.metrics import Series

__all__ = [
    "EVERYWHERE",
    "OTHER",
    "REASONS",
    "ROUTES",
    "Route",
    "methods_of",
    "series",
    "template_of",
]

OTHER: Final = "other"
"""The route label of every path that is none of ours."""

REASONS: Final = (*STATUSES, INTERNAL)
"""The codes of refusals that metrics count."""

EVERYWHERE: Final = (400, 408, 431, 503)
"""What any request may be answered with before it is known which route it is for; metrics count
these answers for the route `OTHER`."""

_MODEL_ROWS: Final = (400, 408, 413, 415, 422, 429, 500, 503)


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
    Route("POST", "/admin/reload", "admin", 200, (409, 415, 429, 500, 503)),
    Route("GET", "/healthz", None, 200),
    Route("GET", "/readyz", None, 200, (503,)),
    Route("GET", "/metrics", None, 200),
    Route("GET", "/v2", None, 200),
    Route("GET", "/v2/health/live", None, 200),
    Route("GET", "/v2/health/ready", None, 200, (503,)),
    Route("GET", "/v2/models/{name}", "predict", 200, (404, 500, 503)),
    Route("GET", "/v2/models/{name}/ready", None, 200, (404, 503)),
    Route("POST", "/v2/models/{name}/infer", "predict", 200, (*_MODEL_ROWS, 404)),
    Route("GET", "/v2/models/{name}/versions/{version}", "predict", 200, (404, 500, 503)),
    Route("GET", "/v2/models/{name}/versions/{version}/ready", None, 200, (404, 503)),
    Route(
        "POST", "/v2/models/{name}/versions/{version}/infer", "predict", 200, (*_MODEL_ROWS, 404)
    ),
    Route("GET", "/docs", None, 200),
    Route("GET", "/openapi.json", None, 200),
)

_METHODS: Final = {
    path: [route.method for route in ROUTES if route.path == path]
    for path in dict.fromkeys(route.path for route in ROUTES)
}
_FIXED: Final = {route.path for route in ROUTES if "{" not in route.path}
_TEMPLATES: Final = list(dict.fromkeys(route.path for route in ROUTES if "{" in route.path))
_PATTERN: Final = re.compile(
    "|".join(
        # The id of a memory may hold slashes, a name may not.
        "(" + re.sub(r"\{\w+\}", "[^/]+", template.replace("{id}", "(?s:.*)")) + ")"
        for template in _TEMPLATES
    )
)


def template_of(path: str) -> str:
    """The template that a path matches, so that metrics have few labels; else `OTHER`."""
    if path in _FIXED:
        return path
    match = _PATTERN.fullmatch(path)
    return OTHER if match is None else _TEMPLATES[(match.lastindex or 0) - 1]


def methods_of(template: str) -> list[str]:
    """The methods that a path has; none for `OTHER`."""
    return _METHODS.get(template, [])


def series() -> Iterator[Series]:
    """The requests that metrics expect."""
    for route in ROUTES:
        for code in route.codes:
            yield route.path, route.method, str(code)
    yield OTHER, "GET", "404"
    for code in (*EVERYWHERE, 501):
        yield OTHER, "other", str(code)
