"""Logs: one line an event, as JSON for machines or as text for people, on stderr.

Whatever a client or a file says is escaped in both forms, so that no line can be forged and no
terminal commanded. `configure` takes over the lines of all loggers, `catch_the_rest` what Python
would write to stderr without any: warnings, and exceptions that nobody caught.
"""

import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from math import isfinite
from types import TracebackType
from typing import Any, Final, Literal, TextIO

from resmem_service.printable import printable

__all__ = ["LogFormat", "catch_the_rest", "configure", "fields", "log_of_the_caller_kept"]

LogFormat = Literal["json", "text"]

_FIELDS: Final = "resmem_fields"
_INDENT: Final = "    "

_log = logging.getLogger(__name__)


def fields(**values: str | int | float | None) -> dict[str, dict[str, str | int | float | None]]:
    """Values to log beside the message: `log.info("ready", extra=fields(seconds=1.2))`."""
    return {_FIELDS: values}


def configure(level: str, form: LogFormat, *, worker: int | None = None) -> None:
    """Sends the log of the whole process to stderr, each event in one line.

    Where `worker` is given, every line says it. Uvicorn's own lines come the same way, its access
    log stays off: `/metrics` counts requests.
    """
    everywhere = {} if worker is None else {"worker": worker}
    handler = _Stderr((_JsonLine if form == "json" else _TextLine)(everywhere))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.WARNING)  # its start and stop lines say less than ours
    logging.getLogger("uvicorn.access").disabled = True


@contextmanager
def log_of_the_caller_kept() -> Iterator[None]:
    """Whatever is configured inside, the process has its own handlers and level again outside."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def catch_the_rest() -> None:
    """Logs warnings, and exceptions that end the process or a thread, or cannot be raised."""
    sys.excepthook = _on_exception
    threading.excepthook = _on_thread_exception
    sys.unraisablehook = _on_unraisable
    warnings.showwarning = _on_warning


class _Stderr(logging.Handler):
    """Writes to what `sys.stderr` is at that moment, and never raises."""

    def __init__(self, formatter: "_Line") -> None:
        super().__init__()
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        try:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
        except (AttributeError, OSError, ValueError):
            return  # closed, or nobody reads it: there is nowhere left to complain


class _Line(logging.Formatter):
    def __init__(self, everywhere: Mapping[str, int]) -> None:
        super().__init__()
        self._everywhere = everywhere

    def _fields(self, record: logging.LogRecord) -> dict[str, object]:
        return {**self._everywhere, **getattr(record, _FIELDS, {})}

    def _trace(self, record: logging.LogRecord) -> str:
        """The traceback, and where the event was logged if the logger was asked to say so."""
        parts = [self.formatException(record.exc_info)] if record.exc_info else []
        return "\n".join([*parts, record.stack_info] if record.stack_info else parts)


class _JsonLine(_Line):
    """`{"time", "level", "logger", "message", ...fields, "exception"}`, in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
            **self._fields(record),
        }
        if trace := self._trace(record):
            line["exception"] = trace
        return json.dumps({_whole(name): _known(value) for name, value in line.items()})


class _TextLine(_Line):
    """`time level message  name=value ...`, a traceback on indented lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        values = self._fields(record)
        rest = "".join(f" {name}={_quoted(str(value))}" for name, value in values.items())
        message = printable(_message(record))
        lines = [f"{_time(record)} {record.levelname.lower():7} {message}{rest}"]
        if trace := self._trace(record):
            lines += [_INDENT + printable(line) for line in trace.split("\n")]
        return "\n".join(lines)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # what is wrong with a line must not cost the line
        return f"{record.msg} {record.args}"


def _known(value: object) -> object:
    """Returns a value that JSON can hold: null for NaN and infinity, text for other objects."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else None
    return _whole(str(value))


def _whole(text: str) -> str:
    """Text without halves of a character, which strict readers of JSON refuse."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _quoted(value: str) -> str:
    """A value that cannot be taken for two, or for another name."""
    text = printable(value)
    if text and not any(mark in text for mark in ' "='):
        return text
    return '"' + text.replace('"', '\\"') + '"'


def _time(record: logging.LogRecord) -> str:
    stamp = datetime.fromtimestamp(record.created, UTC)
    return stamp.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _on_exception(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        _log.critical("the process ends with an exception", exc_info=(kind, error, trace))


def _on_thread_exception(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is SystemExit:
        return
    error = args.exc_value or args.exc_type()
    _log.error(
        "a thread ended with an exception",
        exc_info=(args.exc_type, error, args.exc_traceback),
        extra=fields(thread=None if args.thread is None else args.thread.name),
    )


def _on_unraisable(unraisable: Any) -> None:
    """Called with a `sys.UnraisableHookArgs`, a name that only type checkers know."""
    error = unraisable.exc_value or unraisable.exc_type()
    _log.error(
        "%s %r",
        unraisable.err_msg or "an exception was ignored in",
        unraisable.object,
        exc_info=(unraisable.exc_type, error, unraisable.exc_traceback),
    )


def _on_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,  # noqa: ARG001 - the signature is that of warnings.showwarning
    line: str | None = None,  # noqa: ARG001
) -> None:
    logging.getLogger("py.warnings").warning(
        "%s: %s", category.__name__, message, extra=fields(file=filename, line=lineno)
    )
