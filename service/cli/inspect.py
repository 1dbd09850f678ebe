"""`resmem inspect`: what a bundle and its state hold."""

import sys
from argparse import ArgumentParser, Namespace, _SubParsersAction

from service.cli.place import add_place, find_place

__all__ = ["add_parser", "run"]


def add_parser(subparsers: "_SubParsersAction[ArgumentParser]") -> None:
    """Declare the command and its options."""
    parser = subparsers.add_parser(
        "inspect",
        help="show what is in a bundle and its state",
        description="Memories by tier, age and source, sizes on disk, segments. It writes nothing "
        "and works beside a running service.",
    )
    add_place(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object, for a program")
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Print the numbers.

    Raises:
        ResmemError: there is no such bundle, or its journal cannot be read.
    """
    import orjson

    from service.maintenance.inspection import inspect
    from service.maintenance.inspection_table import render

    place = find_place(args)
    found = inspect(place.bundle, place.folders)
    if args.json:
        sys.stdout.write(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        sys.stdout.write(render(found))
    return 0
