"""What `fit` and `eval` print: the table of scores and what was chosen."""

from collections.abc import Sequence
from typing import Final

from service.bundle.manifest import Interval, Manifest, ScoreTable

__all__ = ["render_choice", "render_scores"]

_MEANING: Final = {
    "leave-one-out": (
        "leave-one-out: training rows, each without its own memory; other rows chose the "
        "parameters. The base was trained on them: optimistic. Rows that it has not seen "
        "(--unseen, --test) tell more."
    ),
    "unseen": "unseen: rows that the base was not trained on; others of them chose the parameters.",
    "test": "test: rows that nothing was chosen on.",
}


def render_scores(tables: Sequence[ScoreTable]) -> str:
    """A table, one line per measurement, with 95 % intervals, and what its rows are."""
    unit = "accuracy, %" if tables[0].metric == "accuracy" else "RMSE"
    lines = [f"{'held-out rows':<24}{'base':>24}{'plain kNN':>24}{'ResMem':>24}"]
    for table in tables:
        cells = (table.base, table.knn, table.resmem)
        scores = "".join(f"{_cell(cell, table.metric == 'accuracy'):>24}" for cell in cells)
        lines.append(f"{f'{table.held_out}, {table.rows:,}':<24}{scores}")
    notes = [_MEANING[table.held_out] for table in tables]
    return "\n".join([f"{unit} [95 % interval]", *lines, *notes])


def render_choice(manifest: Manifest) -> str:
    """The parameters and sizes, in two lines."""
    embedding, chosen = manifest.embedding, manifest.parameters
    temperature = f"  T {chosen.temperature:g}" if manifest.task == "classification" else ""
    return (
        f"{manifest.memories:,} memories; embedding {embedding.tensor}, {embedding.dim} axes, "
        f"transform {embedding.transform}\n"
        f"k {chosen.k}  sigma {chosen.sigma:.4g}{temperature}  alpha {chosen.alpha:.3g}  "
        f"ef {chosen.ef} (recall {manifest.recall:.3f})  "
        f"teaching weight {manifest.teaching_weight:g}"
    )


def _cell(interval: Interval, percent: bool) -> str:
    if percent:
        low, high = 100 * interval.low, 100 * interval.high
        return f"{100 * interval.value:.1f} [{low:.1f}, {high:.1f}]"
    return f"{interval.value:.4g} [{interval.low:.4g}, {interval.high:.4g}]"
