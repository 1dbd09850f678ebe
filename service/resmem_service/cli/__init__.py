"""The command line, `resmem`: arguments come in, an exit status goes out.

Each command is a module of its own, imported when it is asked for, that declares its flags and runs
it; this one reads the settings and hands over. What a user or the operating system did wrong is one
line on stderr and status 2, never a traceback. Nothing imports this package.
"""

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from io import UnsupportedOperation
from typing import Final

from resmem_service import __version__
from resmem_service.cli.complaints import Parser, complain, described, likely_log_format
from resmem_service.errors import ResmemError
from resmem_service.telemetry import logs
from resmem_service.telemetry.logs import LogFormat

__all__ = ["main"]

_COMMANDS: Final[Mapping[str, tuple[str, str, str]]] = {
    "fit": ("fit", "declare", "make a bundle of an ONNX model and a training set"),
    "serve": ("serve", "declare", "serve a bundle over HTTP"),
    "eval": ("evaluate", "declare", "score a bundle on a labelled file"),
    "bench": ("bench", "declare", "put load on a running server and measure it"),
    "rebase": ("rebase", "declare", "give the memories of an older version to a new one"),
    "use": ("use", "declare", "mark the version of a model to serve"),
    "inspect": ("inspect", "declare", "show what is in a bundle and its state"),
    "verify": ("verify", "declare", "check every file of a bundle and its state"),
    "repair": ("repair", "declare", "build damaged segments anew from the journal"),
    "compact": ("compact", "declare", "remove forgotten memories from the disk"),
    "backup": ("backup", "declare_backup", "copy a state to a folder, while it is served"),
    "restore": ("backup", "declare_restore", "make a backup the state"),
    "export": ("transfer", "declare_export", "write the memories added online to a file"),
    "import": ("transfer", "declare_import", "add the memories of a file"),
}
"""Module, its function that declares the flags, and what the command does.

A table, so that the list of commands is written without importing any of them.
"""

_FAILED: Final = 2
_INTERRUPTED: Final = 130
_NOT_READ: Final = 141
"""As of a process that SIGPIPE ended: whoever reads the output has seen enough."""

_log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status: 0, or 2 for what the user can put right.

    Without `argv` the process is taken to be the command's alone.
    """
    if argv is None:
        logs.catch_the_rest()
        return _answer(sys.argv[1:])
    with logs.log_of_the_caller_kept():
        return _answer(argv)


def _answer(words: Sequence[str]) -> int:
    form = likely_log_format(words)
    logs.configure("warning", form)
    _open_output()
    try:
        try:
            return _run(words, form)
        finally:
            # Here, not when the interpreter ends, which could only print that it failed.
            sys.stdout.flush()
    except ResmemError as error:
        complain(form, f"{error.field}: {error.message}" if error.field else error.message)
        return _FAILED
    except BrokenPipeError:
        _drop_output()
        return _NOT_READ
    except OSError as error:
        _drop_output()
        complain(form, described(error))
        _log.debug("traceback of the error above", exc_info=error)
        return _FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED


def _run(words: Sequence[str], form: LogFormat) -> int:
    parser = Parser(
        prog="resmem",
        description="An ONNX model answers, a memory of its past mistakes corrects the answer, "
        "and the memory learns while it serves.",
    )
    parser.add_argument("--version", action="version", version=f"resmem {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    chosen = next((word for word in words if not word.startswith("-")), None)
    for name, (module, declare, purpose) in _COMMANDS.items():
        command = commands.add_parser(name, help=purpose)
        command.log_format = form
        if name == chosen:
            getattr(import_module(f"resmem_service.cli.{module}"), declare)(command)
    parser.log_format = form
    arguments = parser.parse_args(words)
    # Here, not above: `resmem --help` is four times as fast without it.
    from resmem_service import settings as options

    settings = options.from_args(arguments)
    # A command that ends says itself what went wrong: that the log does too is of no use to it.
    spoken = chosen == "serve" or "log_level" in settings.model_fields_set
    logs.configure(settings.log_level if spoken else "critical", settings.log_format)
    status: int = arguments.run(arguments, settings)
    return status


def _open_output() -> None:
    """Makes sure that anything can be written to standard output, and that there is one."""
    if sys.stdout is None:  # closed by whoever started us
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - as long as the process
    # A file's name need not be text: what cannot be encoded is escaped, as on stderr.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """What is left to be written goes nowhere: the interpreter would try again at its end."""
    try:
        descriptor = sys.stdout.fileno()
    except (UnsupportedOperation, ValueError):  # not of the operating system
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)
