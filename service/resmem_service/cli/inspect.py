"""`resmem inspect`: what a bundle and its state hold."""

import sys
from argparse import ArgumentParser, Namespace

from resmem_service.cli.flags import PLACE, add_settings
from resmem_service.settings import Settings

__all__ = ["declare", "run"]


def declare(parser: ArgumentParser) -> None:
    """Declare the command and its options."""
    parser.description = (
        "Memories by tier, age and source, sizes on disk, segments. It writes nothing "
        "and works beside a running service."
    )
    add_settings(parser, *PLACE)
    parser.add_argument("--json", action="store_true", help="one JSON object, for a program")
    parser.set_defaults(run=run)


def run(args: Namespace, settings: Settings) -> int:
    """Print the numbers.

    Raises:
        ResmemError: there is no such bundle, no state of it, or its journal cannot be read.
    """
    import orjson

    from resmem_service.maintenance.inspection import inspect
    from resmem_service.maintenance.inspection_table import render
    from resmem_service.place import find_place

    place = find_place(settings)
    found = inspect(place.bundle, place.folders)
    if args.json:
        sys.stdout.write(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        sys.stdout.write(render(found))
    place.require_state()
    return 0
