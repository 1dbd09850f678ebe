"""`resmem eval`: a bundle measured on a labelled file."""

import os
import sys
from argparse import ArgumentParser, Namespace, _SubParsersAction
from pathlib import Path

__all__ = ["add_parser", "run"]


def add_parser(subparsers: "_SubParsersAction[ArgumentParser]") -> None:
    """Declare the command and its options."""
    parser = subparsers.add_parser(
        "eval",
        help="score a bundle on a labelled file",
        description="Prints base, plain kNN and ResMem with 95 % intervals, from the bundle's own "
        "memories; what was memorized online takes no part.",
    )
    add = parser.add_argument
    add(
        "--store",
        type=Path,
        default=Path(os.environ.get("RESMEM_STORE") or "model_store"),
        help="folder of the bundles (default: $RESMEM_STORE, else model_store)",
    )
    add(
        "--model",
        metavar="NAME[/VERSION]",
        default=os.environ.get("RESMEM_MODEL") or None,
        help="default: $RESMEM_MODEL, else the only one; in its current version",
    )
    add(
        "--data",
        required=True,
        metavar="FILE",
        help="labelled rows: test.npz, x.npy,y.npy or test.parquet",
    )
    add("--target", metavar="KEY", help="key or column of the targets; several: a,b")
    add(
        "--provider",
        choices=("auto", "cpu", "cuda", "tensorrt"),
        default="auto",
        help="what runs the base model",
    )
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Score the bundle and print the table.

    Raises:
        ResmemError: there is no such bundle, it is damaged, or the file does not fit it.
    """
    # Here, not above: the other commands work without the extra `fit`, and start faster.
    from service.bundle.dataset import read_rows
    from service.bundle.evaluate import evaluate
    from service.bundle.progress import Terminal
    from service.bundle.report import render_scores
    from service.bundle.store import ModelStore

    bundle = ModelStore(args.store).resolve(args.model)
    bundle.check()
    rows = read_rows(args.data, bundle.manifest.inputs, target=args.target)
    table = evaluate(bundle, rows, provider=args.provider, progress=Terminal())
    name = f"{bundle.manifest.name}/{bundle.manifest.version}"
    sys.stdout.write(f"{name}\n{render_scores([table])}\n")
    return 0
