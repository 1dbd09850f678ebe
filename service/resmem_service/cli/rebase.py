"""`resmem rebase`: a new version takes over what an older one was taught."""

import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from resmem_service.cli.flags import MEMORY, MODEL, PLACE, add_settings, positive
from resmem_service.errors import BundleError
from resmem_service.settings import Settings

if TYPE_CHECKING:
    from resmem_service.migrate.rebase import Rebased

__all__ = ["declare", "run"]


def declare(parser: ArgumentParser) -> None:
    """Declare the command and its options."""
    parser.description = (
        "Runs every memory that an older version was taught through the base model of "
        "a new one, and writes them with new embeddings and residuals into the new version's "
        "state; id, target, weight, source, time and order stay. The old state is only read and "
        "may be served meanwhile. Stopped at any time, the same command goes on; given again "
        "after the switch, it picks up what changed meanwhile."
    )
    add_settings(parser, *PLACE, *MODEL, *MEMORY)
    add = parser.add_argument
    add(
        "--from",
        dest="old",
        metavar="OLD_VERSION",
        help="who was taught; by default the newest version before it that has memories",
    )
    add(
        "--skip-unfit",
        action="store_true",
        help="leave out and count memories that do not fit the new version (a class that it does "
        "not have, an input of another shape), instead of stopping at the first",
    )
    add("--batch-rows", type=positive, default=256, help="memories per run of the model")
    parser.set_defaults(run=run)


def run(args: Namespace, settings: Settings) -> int:
    """Take the memories over and say what became of them.

    Raises:
        ResmemError: see `rebase`; the old state is as it was, and what is done stays done.
    """
    # Here, not above: the other commands start faster without it.
    from resmem_service.bundle.predecessor import find_predecessor
    from resmem_service.bundle.store import ModelStore
    from resmem_service.migrate.rebase import rebase
    from resmem_service.place import find_place, memory_options
    from resmem_service.progress import progress_for

    new, terminal = find_place(settings).bundle, progress_for(settings.log_format)
    name, version = new.manifest.name, new.manifest.version
    old = args.old
    if old is None:
        before = find_predecessor(settings.state_dir, name, version)
        if before is None:
            raise BundleError(
                f"{settings.state_dir / name} has no memories of a version before {version}: "
                "nothing to take over; a later version is named with --from"
            )
        old = before.version
    try:
        rebased = rebase(
            ModelStore(settings.store).resolve(f"{name}/{old}"),
            new,
            states=settings.state_dir,
            progress=terminal,
            skip_unfit=args.skip_unfit,
            provider=settings.provider,
            threads=settings.threads or None,
            options=memory_options(new, settings),
            batch_rows=args.batch_rows,
        )
    except KeyboardInterrupt:
        terminal.say("stopped; the same command goes on from here")
        raise
    sys.stdout.write(render(rebased, name=name, old=old, new=version))
    return 0


def render(rebased: "Rebased", *, name: str, old: str, new: str) -> str:
    """What was done, and what the reader must know of it, a line each."""
    totals = rebased.totals
    lines = [
        f"{name}/{old} -> {name}/{new}: {totals.carried} memories taken over, "
        f"{rebased.carried} of them in this run"
    ]
    if totals.kept:
        lines.append(f"{totals.kept} stay as version {new} has them, under the same ids")
    if totals.unfit:
        lines.append(f"{totals.unfit} left out, since they do not fit version {new}")
    if rebased.forgotten:
        lines.append(f"{rebased.forgotten} forgotten, since version {old} no longer has them")
    if rebased.fitted_names:
        lines.append(
            f"{rebased.fitted_names} have ids of the form fit-N, which a memory of the new bundle "
            "has too: it stays, and votes beside them"
        )
    if rebased.fitted_forgotten:
        lines.append(
            f"{rebased.fitted_forgotten} memories of the bundle (fit-N) that were forgotten in "
            f"version {old} are not forgotten in version {new}, which was fitted anew: look there "
            "for what is still wrong"
        )
    lines.append(
        f"what version {old} learns or forgets from now on is taken over by the same command, "
        "given once more after the switch"
    )
    lines.append(str(rebased.state))
    return "\n".join(lines) + "\n"
