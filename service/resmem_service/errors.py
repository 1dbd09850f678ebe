"""Every error that a caller can cause or must know of: a code, a message, and the field at fault.

bytes -> request -> rows -> valid rows -> answered rows: `MalformedRequest`, `HeadTooLarge`,
`RequestTimeout`, `Overloaded` and their like end the first arrow, `MalformedBody`, `BodyTooLarge`
and `UnsupportedEncoding` the second, `InvalidInput` and `TooManyRows` the third, `QueueFull`,
`NotReady` and `JournalUnavailable` the last.
No transport is known here: `resmem_service.api.statuses` has the HTTP status of each code.
"""

from typing import ClassVar

__all__ = [
    "BodyTooLarge",
    "BundleError",
    "CorruptFile",
    "ExpectationFailed",
    "Forbidden",
    "ForeignOrigin",
    "HeadTooLarge",
    "HttpVersionNotSupported",
    "InvalidInput",
    "InvalidSettings",
    "JournalLocked",
    "JournalUnavailable",
    "LoadFailed",
    "MalformedBody",
    "MalformedRequest",
    "MemoryNotFound",
    "ModelNotFound",
    "NotReady",
    "Overloaded",
    "ProviderUnavailable",
    "QueueFull",
    "ReloadFailed",
    "RequestTimeout",
    "ResmemError",
    "TooManyConnections",
    "TooManyRows",
    "Unauthorized",
    "UnknownMethod",
    "UnsafeLibrary",
    "UnsupportedEncoding",
    "UnsupportedMediaType",
    "UnsupportedTransferCoding",
]


class ResmemError(Exception):
    """The root: `code` belongs to the class, message and field to the case."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class MalformedRequest(ResmemError):
    """What arrived is not HTTP/1.1, or it is ambiguous where the request ends."""

    code = "malformed_request"


class MalformedBody(ResmemError):
    """The body is not JSON."""

    code = "malformed_body"


class Unauthorized(ResmemError):
    """The request has no key, or one that is not among those of the settings."""

    code = "unauthorized"


class Forbidden(ResmemError):
    """The key is known, but lacks the scope that the route needs."""

    code = "forbidden"


class ForeignOrigin(ResmemError):
    """A browser sent it for a web page whose origin is not among `cors_origins`."""

    code = "foreign_origin"


class MemoryNotFound(ResmemError):
    """No memory has this id."""

    code = "memory_not_found"


class ModelNotFound(ResmemError):
    """The model or version asked for by name is not the one that is served."""

    code = "model_not_found"


class RequestTimeout(ResmemError):
    """The head or the body of the request did not arrive in time."""

    code = "request_timeout"


class ReloadFailed(ResmemError):
    """The new version cannot be served; the one that was served before still is."""

    code = "reload_failed"


class BodyTooLarge(ResmemError):
    """The body is over `max_body_bytes`."""

    code = "body_too_large"


class TooManyRows(ResmemError):
    """The request is over `max_request_rows`."""

    code = "too_many_rows"


class UnsupportedEncoding(ResmemError):
    """The body has a `Content-Encoding` that is not supported, or several of them."""

    code = "unsupported_encoding"


class UnsupportedMediaType(ResmemError):
    """The body has a `Content-Type` that is not JSON's: a form, say, of a web page."""

    code = "unsupported_media_type"


class ExpectationFailed(ResmemError):
    """The request has an `Expect` header that asks for something unknown."""

    code = "expectation_failed"


class InvalidInput(ResmemError):
    """Well-formed, but not what the model or the contract takes; `field` says where."""

    code = "invalid_input"


class QueueFull(ResmemError):
    """The batch queue holds `max_queue_rows` already."""

    code = "queue_full"


class HeadTooLarge(ResmemError):
    """The head of the request, or what surrounds the chunks of its body, is over the limit."""

    code = "head_too_large"


class UnknownMethod(ResmemError):
    """The method is not one that any route of this service supports."""

    code = "unknown_method"


class UnsupportedTransferCoding(ResmemError):
    """The request has a `Transfer-Encoding` other than `chunked`."""

    code = "unsupported_transfer_coding"


class TooManyConnections(ResmemError):
    """`max_connections` are open, and none of them is idle."""

    code = "too_many_connections"


class Overloaded(ResmemError):
    """The bodies of requests in flight have all the memory that they may take."""

    code = "overloaded"


class NotReady(ResmemError):
    """The service is still loading its model, or is shutting down."""

    code = "not_ready"


class HttpVersionNotSupported(ResmemError):
    """The request is in another version than HTTP/1.0 or HTTP/1.1."""

    code = "http_version_not_supported"


class JournalUnavailable(ResmemError):
    """The journal cannot be written: disk full, read-only or locked. Predictions go on."""

    code = "journal_unavailable"


class JournalLocked(JournalUnavailable):
    """Another process, or another write of this one, held the journal for too long."""


class InvalidSettings(ResmemError):
    """A setting that cannot be used; raised before anything is served."""

    code = "invalid_settings"


class ProviderUnavailable(ResmemError):
    """An execution provider asked for by name is not there; raised before anything is served."""

    code = "provider_unavailable"


class UnsafeLibrary(ResmemError):
    """The SQLite library can lose what was committed; raised before a journal is opened."""

    code = "unsafe_library"


class BundleError(ResmemError):
    """A bundle or a training set that cannot be used; raised before anything is served."""

    code = "bundle_error"


class LoadFailed(ResmemError):
    """A load test cannot be carried out, or the server under load went away."""

    code = "load_failed"


class CorruptFile(ResmemError):
    """A file on disk is not what its manifest or header says; the message names the file."""

    code = "corrupt_file"
