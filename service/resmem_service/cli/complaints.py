"""Error messages of commands: one line, in the format that the log has.

The settings may be what is wrong, so the form is looked up without them, as far as it can be known.
"""

import logging
import os
import sys
import tomllib
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from resmem_service.printable import printable
from resmem_service.telemetry.logs import LogFormat

__all__ = ["Parser", "complain", "described", "likely_log_format"]

_log = logging.getLogger(__name__)
_log.setLevel(logging.ERROR)  # whatever the setting `log_level` keeps out


def likely_log_format(words: Sequence[str]) -> LogFormat:
    """The setting `log_format` of a command line, of the environment or of the settings file.

    Whatever cannot be read or understood counts as text.
    """
    value = _given(words, "log_format")
    path = None if value else _given(words, "config")
    if path:
        try:
            value = tomllib.loads(Path(path).read_text(encoding="utf-8")).get("log_format")
        except (OSError, ValueError):
            value = None
    return "json" if value == "json" else "text"


def complain(form: LogFormat, message: str, prog: str = "resmem") -> None:
    """Writes an error to stderr; as an object, if that is how the log is written."""
    if form == "json":
        _log.error("%s", message)
    elif sys.stderr is not None:
        sys.stderr.write(f"{prog}: error: {printable(message)}\n")
        sys.stderr.flush()


def described(error: OSError) -> str:
    """What the operating system refused, and of which file."""
    reason = error.strerror or str(error) or type(error).__name__
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if _is_path(name)]
    return f"{' -> '.join(names)}: {reason}" if names else reason


class Parser(ArgumentParser):
    """Says what is wrong with a command line in the form that the log has."""

    log_format: LogFormat = "text"

    def error(self, message: str) -> NoReturn:
        """Called by argparse."""
        if self.log_format == "text":
            self.print_usage(sys.stderr)
        complain(self.log_format, message, self.prog)
        self.exit(2)

    def _print_message(self, message: str, file: Any = None) -> None:
        """Called by argparse, whose own passes over whatever keeps the message from being read."""
        file = file or sys.stderr
        if message and file is not None:
            file.write(message)


def _given(words: Sequence[str], name: str) -> str | None:
    """A setting's flag or, without one, its variable."""
    flag = f"--{name.replace('_', '-')}"
    value = None
    for word, following in zip(words, [*words[1:], ""], strict=False):
        if word == flag:
            value = following
        elif word.startswith(f"{flag}="):
            value = word.removeprefix(f"{flag}=")
    if value is None:
        variable = f"RESMEM_{name}".upper()
        found = [value for key, value in os.environ.items() if key.upper() == variable]
        value = found[0] if found else None
    return value


def _is_path(name: object) -> bool:
    return isinstance(name, str | bytes | os.PathLike)
