"""`resmem use`: marks the version that a server is to load."""

import sys
from argparse import ArgumentParser, Namespace

from resmem_service.cli.flags import add_settings
from resmem_service.settings import Settings

__all__ = ["declare", "run"]


def declare(parser: ArgumentParser) -> None:
    """Declare the command and its options."""
    parser.description = (
        "Marks a version as the current one of its model: what `resmem serve` loads, "
        "and a server that runs loads at SIGHUP or POST /admin/reload. An older version may be "
        "marked as well, which is how one rolls back."
    )
    parser.add_argument("version", metavar="NAME/VERSION")
    add_settings(parser, "store")
    parser.set_defaults(run=run)


def run(args: Namespace, settings: Settings) -> int:
    """Marks it and says so.

    Raises:
        BundleError: there is no such version.
        CorruptFile: it is damaged at first sight; the mark stays where it was.
    """
    # Here, not above: the other commands start faster without it.
    from resmem_service.bundle.store import ModelStore

    bundle = ModelStore(settings.store).use(args.version)
    sys.stdout.write(
        f"{bundle.reference} is current; a server takes it over at SIGHUP or POST /admin/reload\n"
    )
    return 0
