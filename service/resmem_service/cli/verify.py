"""`resmem verify`: every checksum, every row, and whether all of it agrees."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from resmem_service.cli.flags import PLACE, add_settings
from resmem_service.errors import CorruptFile
from resmem_service.printable import printable
from resmem_service.settings import Settings

if TYPE_CHECKING:
    from resmem_service.maintenance.finding import Finding

__all__ = ["declare", "run"]


def declare(parser: ArgumentParser) -> None:
    """Declare the command and its options."""
    parser.description = (
        "Compares every file of the bundle and every sealed segment with its SHA-256, "
        "reads every memory of the journal, and holds both against each other. It writes nothing "
        "and works beside a running service. The exit status is 0 where all is well, 1 where a "
        "fault was found, 2 where there is nothing to check."
    )
    add_settings(parser, *PLACE)
    parser.add_argument(
        "--backup",
        type=Path,
        metavar="FOLDER",
        help="check this folder of `resmem backup` in place of the state",
    )
    parser.add_argument(
        "--bundle-only", action="store_true", help="check the bundle alone, which needs no state"
    )
    parser.set_defaults(run=run)


def run(args: Namespace, settings: Settings) -> int:
    """Print a line for each check, and two for each fault.

    Raises:
        ResmemError: there is no such bundle or backup.
    """
    from resmem_service.maintenance.backup_check import check_backup
    from resmem_service.maintenance.verification import verify, verify_bundle
    from resmem_service.place import find_place
    from resmem_service.progress import progress_for

    try:
        place = find_place(settings)
    except CorruptFile as error:
        from resmem_service.maintenance.finding import Finding

        _show(Finding("fault", "bundle", error.message, "memories added online are not in it"))
        return 1
    progress = progress_for(settings.log_format)
    stateless = args.bundle_only or not place.folders.root.is_dir()
    if args.backup is not None:
        findings = check_backup(args.backup, place.bundle, progress)
    elif stateless:
        findings = verify_bundle(place.bundle, progress)
    else:
        findings = verify(place.bundle, place.folders, progress)
    faults = 0
    for finding in findings:
        _show(finding)
        faults += finding.level == "fault"
    if args.backup is None and not args.bundle_only:
        place.require_state()
    sys.stdout.write(f"{faults or 'no'} fault{'' if faults == 1 else 's'}\n")
    return 1 if faults else 0


def _show(finding: "Finding") -> None:
    mark = "FAULT" if finding.level == "fault" else finding.level
    lines = [f"{mark:<6} {finding.subject:<17} {finding.detail}"]
    if finding.advice is not None:
        lines.append(f"       {'what is safe':<17} {finding.advice}")
    sys.stdout.write("".join(f"{printable(line)}\n" for line in lines))
    sys.stdout.flush()
