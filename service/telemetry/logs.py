"""Logs: one line an event, as JSON for machines or as text for people, on stderr."""

import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, Literal

import orjson

__all__ = ["LogFormat", "configure", "fields"]

LogFormat = Literal["json", "text"]

_FIELDS: Final = "resmem_fields"


def fields(**values: str | int | float | None) -> dict[str, dict[str, str | int | float | None]]:
    """Values to log beside the message: `log.info("ready", extra=fields(seconds=1.2))`."""
    return {_FIELDS: values}


def configure(level: str, form: LogFormat, *, worker: int | None = None) -> None:
    """Sends the log of the whole process to stderr, each event in one line.

    Where `worker` is given, every line says it. Uvicorn's own lines come the same way, its access
    log stays off: `/metrics` counts requests.
    """
    handler = logging.StreamHandler(sys.stderr)
    everywhere = {} if worker is None else {"worker": worker}
    handler.setFormatter((_JsonLine if form == "json" else _TextLine)(everywhere))
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


class _Line(logging.Formatter):
    def __init__(self, everywhere: Mapping[str, int]) -> None:
        super().__init__()
        self._everywhere = everywhere

    def _fields(self, record: logging.LogRecord) -> dict[str, object]:
        return {**self._everywhere, **getattr(record, _FIELDS, {})}


class _JsonLine(_Line):
    """`{"time", "level", "logger", "message", ...fields, "exception"}`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


class _TextLine(_Line):
    """`time level message  name=value ...`, a traceback on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        values = self._fields(record)
        rest = "".join(f" {name}={value}" for name, value in values.items())
        line = f"{_time(record)} {record.levelname.lower():7} {record.getMessage()}{rest}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _time(record: logging.LogRecord) -> str:
    stamp = datetime.fromtimestamp(record.created, UTC)
    return stamp.isoformat(timespec="milliseconds").replace("+00:00", "Z")
