"""`resmem eval`: a bundle measured on a labelled file."""

import sys
from argparse import ArgumentParser, Namespace

from resmem_service.cli.flags import MODEL, add_settings
from resmem_service.settings import Settings

__all__ = ["declare", "run"]


def declare(parser: ArgumentParser) -> None:
    """Declare the command and its options."""
    parser.description = (
        "Prints base, plain kNN and ResMem with 95 % intervals, from the bundle's own "
        "memories; what was memorized online takes no part."
    )
    add = parser.add_argument
    add_settings(parser, "store", "model", *MODEL)
    add(
        "--data",
        required=True,
        metavar="FILE",
        help="labelled rows: test.npz, x.npy,y.npy or test.parquet",
    )
    add("--target", metavar="KEY", help="key or column of the targets; several: a,b")
    parser.set_defaults(run=run)


def run(args: Namespace, settings: Settings) -> int:
    """Score the bundle and print the table.

    Raises:
        ResmemError: there is no such bundle, it is damaged, or the file does not fit it.
    """
    # Here, not above: the other commands work without the extra `fit`, and start faster.
    from resmem_service.bundle.store import ModelStore
    from resmem_service.fit.dataset import read_rows
    from resmem_service.fit.evaluate import evaluate
    from resmem_service.fit.report import render_scores
    from resmem_service.progress import progress_for

    bundle = ModelStore(settings.store).resolve(settings.model)
    bundle.check()
    rows = read_rows(args.data, bundle.manifest.inputs, target=args.target)
    table = evaluate(
        bundle,
        rows,
        provider=settings.provider,
        threads=settings.threads or None,
        progress=progress_for(settings.log_format),
    )
    name = f"{bundle.manifest.name}/{bundle.manifest.version}"
    sys.stdout.write(f"{name}\n{render_scores([table])}\n")
    return 0
