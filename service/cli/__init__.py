"""The command line, `resmem`: arguments come in, an exit status goes out.

Each command is a module of its own with `add_parser`; this one only hands over. Errors of ours are
one line on stderr and status 2, never a traceback. Nothing imports this package.
"""

import argparse
import sys
from collections.abc import Sequence

from service import __version__
from service.cli import (
    backup,
    bench,
    compact,
    evaluate,
    fit,
    inspect,
    rebase,
    repair,
    serve,
    transfer,
    use,
    verify,
)
from service.errors import ResmemError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status: 0, or 2 for what the user can put right."""
    parser = argparse.ArgumentParser(
        prog="resmem",
        description="An ONNX model answers, a memory of its past mistakes corrects the answer, "
        "and the memory learns while it serves.",
    )
    parser.add_argument("--version", action="version", version=f"resmem {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (
        fit,
        serve,
        evaluate,
        bench,
        rebase,
        use,
        inspect,
        verify,
        repair,
        compact,
        backup,
        transfer,
    ):
        command.add_parser(commands)
    arguments = parser.parse_args(argv)
    try:
        status: int = arguments.run(arguments)
    except ResmemError as error:
        where = f"{error.field}: " if error.field else ""
        print(f"resmem: error: {where}{error.message}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        return 130
    return status
