"""An inspection as text for a person."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from resmem_service.maintenance.inspection import BundleInspection, Inspection, StateInspection
from resmem_service.printable import printable

__all__ = ["render"]

_UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB")


def render(inspection: Inspection) -> str:
    """Lines under headings; sizes in binary units, times in UTC."""
    lines = [*_bundle(inspection.bundle), ""]
    if inspection.state is None:
        lines.append("nothing was memorized online yet")
    else:
        lines += _state(inspection.state)
    return "\n".join(lines) + "\n"


def _bundle(bundle: BundleInspection) -> Iterator[str]:
    yield f"bundle   {bundle.name}/{bundle.version}, {bundle.task}, made {bundle.created}"
    yield f"         {bundle.path}, {_size(bundle.nbytes)}"
    yield (
        f"         {bundle.memories:,} memories, {bundle.forgotten:,} of them forgotten; embedding "
        f"{bundle.embedding_dim}, outputs {bundle.outputs}, residuals {bundle.residuals}"
    )


def _state(state: StateInspection) -> Iterator[str]:
    disk = state.disk
    total = disk.journal + disk.journal_log + disk.segments
    each = f", {total / state.memories:,.0f} bytes a memory" if state.memories else ""
    yield f"state    {state.path}, {_size(total)}{each}"
    yield (
        f"         {state.memories:,} memories: {state.sealed:,} sealed, {state.growing:,} growing;"
        f" revision {state.revision:,}"
    )
    evicted = f"evicted up to sequence {state.horizon:,}" if state.horizon else "nothing evicted"
    yield f"         {state.tombstones:,} tombstones; {evicted}"
    yield (
        f"         journal {_size(disk.journal)} ({_size(disk.free)} of it free), "
        f"log {_size(disk.journal_log)}, segments {_size(disk.segments)}; SQLite {state.sqlite}"
    )
    if state.memories:
        yield ""
        yield from _table(
            ["age", "memories"],
            [
                [name if name == "older" else f"up to {name}", f"{count:,}"]
                for name, count in state.ages.items()
                if count
            ],
        )
        yield ""
        yield from _table(
            ["source", "memories", "oldest", "newest"],
            [
                [
                    "-" if source.source is None else printable(source.source),
                    f"{source.memories:,}",
                    _time(source.oldest_ms),
                    _time(source.newest_ms),
                ]
                for source in state.sources
            ],
        )
    if state.segments:
        yield ""
        yield from _table(
            ["segment", "sequences", "rows", "forgotten", "size"],
            [
                [
                    f"{segment.number:08d}",
                    f"{segment.first:,} to {segment.last:,}",
                    f"{segment.rows:,}",
                    f"{segment.forgotten:,}",
                    _size(segment.nbytes),
                ]
                for segment in state.segments
            ],
        )


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    for row in (headings, *rows):
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        yield "  ".join(cells)


def _size(nbytes: int) -> str:
    size, unit = float(nbytes), 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{nbytes} bytes" if unit == 0 else f"{size:.1f} {_UNITS[unit]}"


def _time(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
