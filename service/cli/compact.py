"""`resmem compact`: what was forgotten leaves the disk."""

import sys
from argparse import ArgumentParser, Namespace, _SubParsersAction

from service.cli.place import add_place, find_place
from service.errors import BundleError, JournalUnavailable

__all__ = ["add_parser", "run"]


def add_parser(subparsers: "_SubParsersAction[ArgumentParser]") -> None:
    """Declare the command and its options."""
    parser = subparsers.add_parser(
        "compact",
        help="remove forgotten memories from the disk",
        description="A forgotten memory is gone from predictions at once; this removes it from the "
        "files as well: segments that hold it are built anew, and the journal gives its pages "
        "back. It works beside a running service. Backups made before still hold it.",
    )
    add_place(parser)
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Compact, and say what it gave back.

    Raises:
        ResmemError: the state is damaged or busy; what was done stays done.
    """
    from service.maintenance.inspection import DiskUse, inspect
    from service.memory.memory import ResidualMemory
    from service.memory.options import MemoryOptions

    place = find_place(args)
    journal = place.folders.journal
    if not journal.exists():
        raise BundleError(f"{journal} is not there: nothing was memorized, or it was lost")

    def disk() -> DiskUse:
        state = inspect(place.bundle, place.folders).state
        assert state is not None
        return state.disk

    before = disk()
    memory = ResidualMemory.open(
        place.folders.root,
        fitted=place.bundle.memories_path,
        shape=place.bundle.manifest.memory_shape(),
        options=MemoryOptions(maintain=False, graph=place.bundle.manifest.graph_settings()),
    )
    try:
        removed = memory.compact()
    except (RuntimeError, OSError) as error:
        raise JournalUnavailable(str(error)) from error
    finally:
        memory.close()
    after = disk()
    sys.stdout.write(
        f"removed {removed:,} forgotten memories from segments\n"
        f"journal {before.journal + before.journal_log:,} -> "
        f"{after.journal + after.journal_log:,} bytes, "
        f"segments {before.segments:,} -> {after.segments:,} bytes\n"
    )
    return 0
