"""The HTTP status of every error: one table from code to status."""

from collections.abc import Mapping
from typing import Final

from resmem_service.errors import ResmemError

__all__ = ["INTERNAL", "STATUSES", "status_of"]

INTERNAL: Final = "internal"
"""The code of whatever the client did not cause; its status is 500."""

STATUSES: Final[Mapping[str, int]] = {
    "malformed_request": 400,
    "malformed_body": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "foreign_origin": 403,
    "not_found": 404,
    "memory_not_found": 404,
    "model_not_found": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "reload_failed": 409,
    "body_too_large": 413,
    "too_many_rows": 413,
    "unsupported_encoding": 415,
    "unsupported_media_type": 415,
    "expectation_failed": 417,
    "invalid_input": 422,
    "queue_full": 429,
    "head_too_large": 431,
    "unknown_method": 501,
    "unsupported_transfer_coding": 501,
    "not_ready": 503,
    "too_many_connections": 503,
    "overloaded": 503,
    "http_version_not_supported": 505,
    "journal_unavailable": 507,
}
"""The codes that a client may meet. Every other error, such as `corrupt_file`, is `INTERNAL`."""


def status_of(error: ResmemError) -> int:
    """Returns the HTTP status of an error; 500 for one that the client did not cause."""
    return STATUSES.get(error.code, 500)
