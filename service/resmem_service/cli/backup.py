"""`resmem backup` and `resmem restore`."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from resmem_service.cli.flags import PLACE, add_settings
from resmem_service.printable import printable
from resmem_service.settings import Settings

__all__ = ["declare_backup", "declare_restore", "run_backup", "run_restore"]


def declare_backup(parser: ArgumentParser) -> None:
    """Declare `backup` and its options."""
    parser.description = (
        "Copies one moment of the state to a new folder, with a checksum of every "
        "file; no request waits for it. The bundle is not in it: its files never change, so copy "
        "the model store as any other folder."
    )
    add_settings(parser, *PLACE)
    parser.add_argument(
        "--to", type=Path, required=True, metavar="FOLDER", help="a folder that is not there yet"
    )
    parser.add_argument(
        "--link",
        action="store_true",
        help="hard-link segments where the file system can: quick, and damage to one of the two "
        "is damage to both",
    )
    parser.set_defaults(run=run_backup)


def declare_restore(parser: ArgumentParser) -> None:
    """Declare `restore` and its options."""
    parser.description = "Checks a backup and makes it the state of its bundle. No service may run."
    add_settings(parser, *PLACE)
    parser.add_argument(
        "--from", dest="source", type=Path, required=True, metavar="FOLDER", help="the backup"
    )
    parser.add_argument(
        "--force", action="store_true", help="move a state that is there aside; it is not removed"
    )
    parser.set_defaults(run=run_restore)


def run_backup(args: Namespace, settings: Settings) -> int:
    """Back up; 1 where damaged segments were left out.

    Raises:
        ResmemError: the folder cannot be written, or the journal is damaged.
    """
    from resmem_service.maintenance.backup import back_up
    from resmem_service.place import find_place
    from resmem_service.progress import progress_for

    place = find_place(settings)
    place.require_state()
    done = back_up(
        place.bundle,
        place.folders,
        args.to,
        link=args.link,
        progress=progress_for(settings.log_format),
    )
    for reason in done.left_out:
        sys.stdout.write(f"left out {printable(reason)}; its rows are in the backup's journal\n")
    sys.stdout.write(
        f"{done.manifest.memories:,} memories, revision {done.manifest.revision:,}, "
        f"{done.nbytes:,} bytes: {args.to}\n"
    )
    return 1 if done.left_out else 0


def run_restore(args: Namespace, settings: Settings) -> int:
    """Restore; 1 where a fault of the backup is left.

    Raises:
        ResmemError: it is not a backup of this bundle, or there is a state already.
    """
    from resmem_service.maintenance.restore import restore
    from resmem_service.place import find_place
    from resmem_service.progress import progress_for

    place = find_place(settings)
    done = restore(
        args.source,
        place.bundle,
        place.folders,
        force=args.force,
        progress=progress_for(settings.log_format),
    )
    if done.aside is not None:
        sys.stdout.write(f"moved the old state to {done.aside}\n")
    for entry in done.repaired.rebuilt:
        sys.stdout.write(f"built segment {entry.number:08d} anew, {entry.rows:,} rows\n")
    for fault in done.repaired.left:
        sys.stdout.write(f"left: {printable(fault)}\n")
    when = done.manifest.created.isoformat(timespec="seconds")
    sys.stdout.write(f"{done.manifest.memories:,} memories as of {when}: {place.folders.root}\n")
    return 1 if done.repaired.left else 0
