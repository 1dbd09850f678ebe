"""`resmem export` and `resmem import`: memories as JSON Lines or Parquet."""

import sys
from argparse import ArgumentParser, Namespace, _SubParsersAction
from pathlib import Path

from service.cli.place import add_place, find_place

__all__ = ["add_parser", "run_export", "run_import"]


def add_parser(subparsers: "_SubParsersAction[ArgumentParser]") -> None:
    """Declare both commands and their options."""
    export = subparsers.add_parser(
        "export",
        help="write the memories added online to a file",
        description="Writes the memories of one moment, oldest first, as JSON Lines or Parquet: "
        "id, inputs, target, weight, source, time. It works beside a running service.",
    )
    add_place(export)
    add = export.add_argument
    add("--to", type=Path, required=True, metavar="FILE", help="ends in .jsonl or .parquet")
    add("--source", help="only memories of this source")
    add(
        "--vectors",
        action="store_true",
        help="add embeddings and residuals: the same bundle can import them without its model",
    )
    add("--skip-bad", action="store_true", help="leave out damaged memories, and name them")
    add("--force", action="store_true", help="replace a file that is there")
    export.set_defaults(run=run_export)

    importing = subparsers.add_parser(
        "import",
        help="add the memories of a file",
        description="Adds what `resmem export` wrote, or a file of your own: one object a line, "
        "with inputs and target, and perhaps id, weight, source and created_ms. Rows without the "
        "embedding and residual of this very bundle run through its base model. Importing a file "
        "again adds nothing. It works beside a running service, which uses the memories at once.",
    )
    add_place(importing)
    add = importing.add_argument
    add("file", type=Path, metavar="FILE", help="JSON Lines, or .parquet")
    add(
        "--skip-bad",
        action="store_true",
        help="pass over what is no memory of this bundle, and name it, instead of stopping there",
    )
    add(
        "--provider",
        choices=("auto", "cpu", "cuda", "tensorrt"),
        default="auto",
        help="what runs the base model",
    )
    importing.set_defaults(run=run_import)


def run_export(args: Namespace) -> int:
    """Export, and say how many.

    Raises:
        ResmemError: the file cannot be written, or a memory is damaged.
    """
    from service.bundle.progress import Terminal
    from service.maintenance.export import export_memories

    place = find_place(args)
    count = export_memories(
        place.bundle,
        place.folders,
        args.to,
        source=args.source,
        vectors=args.vectors,
        skip_bad=args.skip_bad,
        force=args.force,
        progress=Terminal(),
    )
    sys.stdout.write(f"{count:,} memories, {args.to.stat().st_size:,} bytes: {args.to}\n")
    return 0


def run_import(args: Namespace) -> int:
    """Import, and say what became of the memories.

    Raises:
        ResmemError: an entry is no memory, or the journal cannot be written.
    """
    from service.bundle.progress import Terminal
    from service.maintenance.importer import import_memories
    from service.memory.memory import ResidualMemory
    from service.memory.options import MemoryOptions

    place = find_place(args)
    place.bundle.check()
    memory = ResidualMemory.open(
        place.folders.root,
        fitted=place.bundle.memories_path,
        shape=place.bundle.manifest.memory_shape(),
        options=MemoryOptions(graph=place.bundle.manifest.graph_settings()),
    )
    try:
        done = import_memories(
            place.bundle,
            memory,
            args.file,
            skip_bad=args.skip_bad,
            provider=args.provider,
            progress=Terminal(),
        )
    finally:
        memory.close()
    sys.stdout.write(
        f"{done.created:,} memories created, {done.replaced:,} replaced, {done.unchanged:,} there "
        f"already, {done.skipped:,} skipped; the base model ran for {done.embedded:,}\n"
    )
    return 0
