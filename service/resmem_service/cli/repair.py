"""`resmem repair`: damaged segments built anew from the journal."""

import sys
from argparse import ArgumentParser, Namespace

from resmem_service.cli.flags import PLACE, add_settings
from resmem_service.errors import BundleError
from resmem_service.printable import printable
from resmem_service.settings import Settings

__all__ = ["declare", "run"]


def declare(parser: ArgumentParser) -> None:
    """Declare the command and its options."""
    parser.description = (
        "Looks at the state as `verify` does, and builds every damaged or missing "
        "segment anew from the journal, which has all rows. It works beside a running service."
    )
    add_settings(parser, *PLACE)
    parser.add_argument(
        "--forget-damaged",
        action="store_true",
        help="forget memories whose rows in the journal are damaged; nothing else mends them",
    )
    parser.set_defaults(run=run)


def run(args: Namespace, settings: Settings) -> int:
    """Say what was mended; 1 where a fault is left.

    Raises:
        ResmemError: the journal is damaged, or cannot be written.
    """
    from resmem_service.maintenance.repair import repair
    from resmem_service.memory.journal.sqlite.eviction import count_memories
    from resmem_service.place import find_place
    from resmem_service.progress import progress_for

    place = find_place(settings)
    place.require_state()
    journal = place.folders.journal
    if not journal.exists():
        raise BundleError(f"{journal} is not there: nothing was memorized, or it was lost")
    with progress_for(settings.log_format).bar("memories", count_memories(journal)) as advance:
        repaired = repair(
            place.folders,
            place.bundle.manifest.memory_shape(),
            forget_damaged=args.forget_damaged,
            graph=place.bundle.manifest.graph_settings(),
            advance=advance,
        )
    for entry in repaired.rebuilt:
        sys.stdout.write(f"built segment {entry.number:08d} anew, {entry.rows:,} rows\n")
    for id in repaired.dropped:
        sys.stdout.write(f"forgot {id!r}, which was damaged\n")
    for fault in repaired.left:
        sys.stdout.write(f"left: {printable(fault)}\n")
    if not (repaired.rebuilt or repaired.dropped or repaired.left):
        sys.stdout.write("nothing to mend\n")
    return 1 if repaired.left else 0
