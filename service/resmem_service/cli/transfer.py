"""`resmem export` and `resmem import`: memories as JSON Lines or Parquet."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from resmem_service.cli.flags import MEMORY, MODEL, PLACE, add_settings
from resmem_service.settings import Settings

__all__ = ["declare_export", "declare_import", "run_export", "run_import"]


def declare_export(parser: ArgumentParser) -> None:
    """Declare `export` and its options."""
    parser.description = (
        "Writes the memories of one moment, oldest first, as JSON Lines or Parquet: "
        "id, inputs, target, weight, source, time. It works beside a running service."
    )
    add_settings(parser, *PLACE)
    add = parser.add_argument
    add("--to", type=Path, required=True, metavar="FILE", help="ends in .jsonl or .parquet")
    add("--source", help="only memories of this source")
    add(
        "--vectors",
        action="store_true",
        help="add embeddings and residuals: the same bundle can import them without its model",
    )
    add("--skip-bad", action="store_true", help="leave out damaged memories, and name them")
    add("--force", action="store_true", help="replace a file that is there")
    parser.set_defaults(run=run_export)


def declare_import(parser: ArgumentParser) -> None:
    """Declare `import` and its options."""
    parser.description = (
        "Adds what `resmem export` wrote, or a file of your own: one object a line, "
        "with inputs and target, and perhaps id, weight, source and created_ms. Rows without the "
        "embedding and residual of this very bundle run through its base model. Importing a file "
        "again adds nothing. It works beside a running service, which uses the memories at once."
    )
    add_settings(parser, *PLACE, *MODEL, *MEMORY, "max_weight")
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="JSON Lines, or .parquet")
    add(
        "--skip-bad",
        action="store_true",
        help="skip and name entries that are not memories of this bundle; by default stop there",
    )
    parser.set_defaults(run=run_import)


def run_export(args: Namespace, settings: Settings) -> int:
    """Export, and say how many.

    Raises:
        ResmemError: the file cannot be written, or a memory is damaged.
    """
    from resmem_service.maintenance.export import export_memories
    from resmem_service.place import find_place
    from resmem_service.progress import progress_for

    place = find_place(settings)
    place.require_state()
    count = export_memories(
        place.bundle,
        place.folders,
        args.to,
        source=args.source,
        vectors=args.vectors,
        skip_bad=args.skip_bad,
        force=args.force,
        progress=progress_for(settings.log_format),
    )
    sys.stdout.write(f"{count:,} memories, {args.to.stat().st_size:,} bytes: {args.to}\n")
    return 0


def run_import(args: Namespace, settings: Settings) -> int:
    """Import, and say what became of the memories.

    Raises:
        ResmemError: an entry is no memory, or the journal cannot be written.
    """
    from resmem_service.maintenance.importer import import_memories
    from resmem_service.memory.memory import ResidualMemory
    from resmem_service.place import find_place, memory_options
    from resmem_service.progress import progress_for

    place = find_place(settings)
    place.bundle.check()
    memory = ResidualMemory.open(
        place.folders.root,
        fitted=place.bundle.memories_path,
        shape=place.bundle.manifest.memory_shape(),
        options=memory_options(place.bundle, settings),
    )
    try:
        done = import_memories(
            place.bundle,
            memory,
            args.file,
            skip_bad=args.skip_bad,
            provider=settings.provider,
            max_weight=settings.max_weight,
            threads=settings.threads or None,
            progress=progress_for(settings.log_format),
        )
    finally:
        memory.close()
    sys.stdout.write(
        f"{done.created:,} memories created, {done.replaced:,} replaced, {done.unchanged:,} there "
        f"already, {done.skipped:,} skipped; the base model ran for {done.embedded:,}\n"
    )
    return 0
