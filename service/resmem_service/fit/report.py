"""What `fit` and `eval` print: the table of scores, what was chosen, and the codecs tried."""

from collections.abc import Sequence
from typing import Final

from resmem_service.bundle.manifest import CodecTrial, Interval, Manifest, ScoreTable

__all__ = ["render_choice", "render_codecs", "render_scores"]

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


def render_codecs(manifest: Manifest) -> str:
    """A table, one line per codec that was tried, and why one of them was chosen."""
    percent = manifest.task == "classification"
    unit = "accuracy, %" if percent else "RMSE"
    heads = ["bytes", "per memory", unit, "changed by", "score off by", "on average"]
    top = any(trial.dropped_mean is not None for trial in manifest.codecs)
    heads += ["dropped, %", "99 % below"] if top else []
    lines = [f"{'residuals as':<14}" + "".join(f"{head:>14}" for head in heads)]
    for trial in manifest.codecs:
        mark = " <-" if trial.name == manifest.residuals else ""
        cells = "".join(f"{cell:>14}" for cell in _codec_cells(trial, percent, top))
        lines.append(f"{trial.name + mark:<14}{cells}")
    rows = manifest.codecs[0].rows
    lines.append(f"{rows:,} reporting rows; {manifest.residuals}: {manifest.residuals_reason}")
    return "\n".join(lines)


def _codec_cells(trial: CodecTrial, percent: bool, top: bool) -> list[str]:
    cells = [f"{trial.residual_bytes:,}", f"{trial.memory_bytes:,.0f}"]
    if percent:
        cells += [f"{100 * trial.score:.2f}", f"{100 * trial.score_change:+.2f}"]
    else:
        cells += [f"{trial.score:.5g}", f"{trial.score_change:+.2g}"]
    cells += [f"{trial.largest_change:.2g}", f"{trial.mean_change:.2g}"]
    if top:
        shares = (trial.dropped_mean, trial.dropped_p99)
        cells += ["" if share is None else f"{100 * share:.2f}" for share in shares]
    return cells


def _cell(interval: Interval, percent: bool) -> str:
    if percent:
        low, high = 100 * interval.low, 100 * interval.high
        return f"{100 * interval.value:.1f} [{low:.1f}, {high:.1f}]"
    return f"{interval.value:.4g} [{interval.low:.4g}, {interval.high:.4g}]"
