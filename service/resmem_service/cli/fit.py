"""`resmem fit`: an ONNX model and labelled rows become a bundle."""

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path

from resmem_service.cli.flags import MODEL, add_settings, natural, positive
from resmem_service.errors import BundleError
from resmem_service.extra import require
from resmem_service.settings import Settings

__all__ = ["declare", "run"]


def declare(parser: ArgumentParser) -> None:
    """Declare the command and its options."""
    parser.description = (
        "Runs the model over labelled rows, keeps its residuals as memories, chooses "
        "the parameters on held-out rows and publishes a new version in the model store."
    )
    add = parser.add_argument
    add("--model", type=Path, required=True, metavar="FILE", help="the base model, ONNX")
    add(
        "--data",
        required=True,
        metavar="FILE",
        help="labelled rows, best those that the base was trained on: train.npz, x.npy,y.npy or "
        "train.parquet",
    )
    add(
        "--unseen",
        metavar="FILE",
        help="labelled rows that the base was not trained on: parameters are chosen on one half, "
        "reported on the other, and all become memories",
    )
    add("--test", metavar="FILE", help="labelled rows to score once, at the end")
    add_settings(parser, "store", *MODEL)
    add("--name", required=True, help="name of the model in the store")
    add("--task", choices=("classification", "regression"), help="by default the targets decide")
    add("--target", metavar="KEY", help="key or column of the targets; several: a,b")
    add(
        "--classes",
        metavar="FILE|A,B,C",
        help="class names in the order of the model's outputs",
    )
    add(
        "--embedding",
        metavar="TENSOR",
        help="tensor to find neighbours by, or `input` for the standardised inputs; by default "
        "what the model's last layer reads",
    )
    add("--embedding-dim", type=positive, metavar="D", help="reduce the embedding to D axes")
    add(
        "--output",
        action="append",
        default=[],
        metavar="NAME",
        help="output that is the prediction; repeat it for a regression with several",
    )
    add(
        "--whiten",
        choices=("auto", "yes", "no"),
        default="auto",
        help="whiten the embedding; auto does what is best on held-out rows",
    )
    add(
        "--residuals",
        type=_codec,
        default="auto",
        metavar="auto|float32|float16|top-M",
        help="how residuals are stored; top-M keeps the target and the M likeliest classes; auto "
        "takes the smallest that does as well on held-out rows, and says why",
    )
    add("--m", type=positive, default=16, help="links of the graph per row")
    add("--ef-construction", type=positive, default=200, help="breadth of the graph's build")
    add(
        "--max-memories",
        type=positive,
        metavar="N",
        help="keep a random N of the rows, each class with its share",
    )
    add("--seed", type=natural, default=0, help="of every random choice")
    add("--batch-rows", type=positive, default=256, help="rows per run of the base model")
    parser.set_defaults(run=run)


def run(args: Namespace, settings: Settings) -> int:
    """Fit, and print what was chosen and how good it is.

    Raises:
        ResmemError: the model or the data cannot be used.
    """
    require("tqdm", "the progress bar of `resmem fit`")
    # Here, not above: the other commands work without the extra `fit`, and start faster.
    from resmem_service.fit.fit import FitSettings, fit
    from resmem_service.fit.labels import read_classes
    from resmem_service.fit.report import render_choice, render_codecs, render_scores
    from resmem_service.memory.segments.graph_settings import GraphSettings
    from resmem_service.progress import progress_for

    wanted = FitSettings(
        model=args.model,
        data=args.data,
        store=settings.store,
        name=args.name,
        unseen=args.unseen,
        test=args.test,
        task=args.task,
        target=args.target,
        classes=None if args.classes is None else read_classes(args.classes),
        embedding=args.embedding,
        embedding_dim=args.embedding_dim,
        outputs=args.output,
        whiten=args.whiten,
        residuals=args.residuals,
        graph=GraphSettings(m=args.m, ef_construction=args.ef_construction),
        max_memories=args.max_memories,
        seed=args.seed,
        provider=settings.provider,
        threads=settings.threads or None,
        batch_rows=args.batch_rows,
    )
    try:
        bundle = fit(wanted, progress_for(settings.log_format))
    except OSError as error:
        raise BundleError(f"cannot write to {settings.store}: {error}") from error
    manifest = bundle.manifest
    sys.stdout.write(
        f"{render_choice(manifest)}\n\n{render_codecs(manifest)}\n\n"
        f"{render_scores(manifest.scores)}\n\n{bundle.path}\n"
    )
    return 0


def _codec(text: str) -> str:
    if text != "auto":
        # Here, not above: the other commands would load the kernel for nothing.
        from resmem_service.memory.search.codec import ResidualCodec

        try:
            ResidualCodec.named(text)
        except ValueError as error:
            raise ArgumentTypeError(f"{error}; or auto") from error
    return text
