"""`resmem compact`: what was forgotten leaves the disk."""

import sys
from argparse import ArgumentParser, Namespace
from dataclasses import replace

from resmem_service.cli.flags import MEMORY, PLACE, add_settings
from resmem_service.errors import BundleError, JournalUnavailable
from resmem_service.settings import Settings

__all__ = ["declare", "run"]


def declare(parser: ArgumentParser) -> None:
    """Declare the command and its options."""
    parser.description = (
        "A forgotten memory is gone from predictions at once; this removes it from the "
        "files as well: segments that hold it are built anew, and the journal gives its pages "
        "back. It works beside a running service. Backups made before still hold it."
    )
    add_settings(parser, *PLACE, *MEMORY)
    parser.set_defaults(run=run)


def run(_: Namespace, settings: Settings) -> int:
    """Compact, and say what it gave back.

    Raises:
        ResmemError: the state is damaged or busy; what was done stays done.
    """
    from resmem_service.maintenance.inspection import DiskUse, inspect
    from resmem_service.memory.memory import ResidualMemory
    from resmem_service.place import find_place, memory_options

    place = find_place(settings)
    place.require_state()
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
        options=replace(memory_options(place.bundle, settings), maintain=False),
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
