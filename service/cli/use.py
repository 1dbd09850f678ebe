"""`resmem use`: marks the version that a server is to load."""

import os
import sys
from argparse import ArgumentParser, Namespace, _SubParsersAction
from pathlib import Path

__all__ = ["add_parser", "run"]


def add_parser(subparsers: "_SubParsersAction[ArgumentParser]") -> None:
    """Declare the command and its options."""
    parser = subparsers.add_parser(
        "use",
        help="mark the version of a model to serve",
        description="Marks a version as the current one of its model: what `resmem serve` loads, "
        "and a server that runs loads at SIGHUP or POST /admin/reload. An older version may be "
        "marked as well, which is how one rolls back.",
    )
    parser.add_argument("model", metavar="NAME/VERSION")
    parser.add_argument(
        "--store",
        type=Path,
        default=Path(os.environ.get("RESMEM_STORE") or "model_store"),
        help="folder of the bundles (default: $RESMEM_STORE, else model_store)",
    )
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Marks it and says so.

    Raises:
        BundleError: there is no such version.
        CorruptFile: it is damaged at first sight; the mark stays where it was.
    """
    # Here, not above: the other commands start faster without it.
    from service.bundle.store import ModelStore

    bundle = ModelStore(args.store).use(args.model)
    sys.stdout.write(
        f"{bundle.reference} is current; a server takes it over at SIGHUP or POST /admin/reload\n"
    )
    return 0
