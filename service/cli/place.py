"""Which bundle and which state a command looks after: three options, the same for all of them."""

import os
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.bundle.store import Bundle
    from service.memory.state_folders import StateFolders

__all__ = ["Place", "add_place", "find_place"]


@dataclass(frozen=True, slots=True)
class Place:
    """A bundle, and the folder of what was memorized with it."""

    bundle: "Bundle"
    folders: "StateFolders"


def add_place(parser: ArgumentParser) -> None:
    """Declare the options; their defaults are the settings of the server."""
    parser.add_argument(
        "--store",
        type=Path,
        default=Path(os.environ.get("RESMEM_STORE") or "model_store"),
        help="folder of the bundles (default: $RESMEM_STORE, else model_store)",
    )
    parser.add_argument(
        "--model",
        metavar="NAME[/VERSION]",
        default=os.environ.get("RESMEM_MODEL") or None,
        help="default: $RESMEM_MODEL, else the only one; in its current version",
    )
    parser.add_argument(
        "--state-dir",
        type=Path,
        default=Path(os.environ.get("RESMEM_STATE_DIR") or "state"),
        help="folder of the states (default: $RESMEM_STATE_DIR, else state)",
    )


def find_place(args: Namespace) -> Place:
    """The bundle and the state that the options name; the state need not be there yet.

    Raises:
        BundleError: there is no such bundle, or several where one is meant.
        CorruptFile: its manifest is damaged.
    """
    # Here, not above: the other commands start faster without it.
    from service.bundle.store import ModelStore
    from service.memory.state_folders import StateFolders

    bundle = ModelStore(args.store).resolve(args.model)
    manifest = bundle.manifest
    return Place(bundle, StateFolders(args.state_dir / manifest.name / manifest.version))
