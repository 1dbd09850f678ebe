"""`resmem verify`: every checksum, every row, and whether all of it agrees."""

import sys
from argparse import ArgumentParser, Namespace, _SubParsersAction
from pathlib import Path
from typing import TYPE_CHECKING

from service.cli.place import add_place, find_place
from service.errors import CorruptFile

if TYPE_CHECKING:
    from service.maintenance.finding import Finding

__all__ = ["add_parser", "run"]


def add_parser(subparsers: "_SubParsersAction[ArgumentParser]") -> None:
    """Declare the command and its options."""
    parser = subparsers.add_parser(
        "verify",
        help="check every file of a bundle and its state",
        description="Compares every file of the bundle and every sealed segment with its SHA-256, "
        "reads every memory of the journal, and holds both against each other. It writes nothing "
        "and works beside a running service. The exit status is 0 where all is well, 1 where a "
        "fault was found, 2 where there is nothing to check.",
    )
    add_place(parser)
    parser.add_argument(
        "--backup",
        type=Path,
        metavar="FOLDER",
        help="check this folder of `resmem backup` in place of the state",
    )
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Print a line for each check, and two for each fault.

    Raises:
        ResmemError: there is no such bundle or backup.
    """
    from service.bundle.progress import Terminal
    from service.maintenance.backup_check import check_backup
    from service.maintenance.verification import verify

    try:
        place = find_place(args)
    except CorruptFile as error:
        from service.maintenance.finding import Finding

        _show(Finding("fault", "bundle", error.message, "memories added online are not in it"))
        return 1
    if args.backup is None:
        findings = verify(place.bundle, place.folders, Terminal())
    else:
        findings = check_backup(args.backup, place.bundle, Terminal())
    faults = 0
    for finding in findings:
        _show(finding)
        faults += finding.level == "fault"
    sys.stdout.write(f"{faults or 'no'} fault{'' if faults == 1 else 's'}\n")
    return 1 if faults else 0


def _show(finding: "Finding") -> None:
    mark = "FAULT" if finding.level == "fault" else finding.level
    lines = [f"{mark:<6} {finding.subject:<17} {finding.detail}"]
    if finding.advice is not None:
        lines.append(f"       {'what is safe':<17} {finding.advice}")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
