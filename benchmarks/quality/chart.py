"""The picture of the Fashion-MNIST benchmark: where the memory helps, and what teaching does."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.fashion_mnist import CLASSES, Images
from benchmarks.quality.intervals import Interval
from benchmarks.quality.measurement import Measurement
from benchmarks.quality.server import Answers
from benchmarks.quality.teaching import Teaching

__all__ = ["draw"]

_BASE, _RESMEM, _INK, _GRID = "#9aa5b1", "#0f766e", "#1f2933", "#e4e7eb"
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.edgecolor": _GRID,
}


def draw(
    path: Path, answers: Answers, test: Images, measurement: Measurement, lessons: Teaching
) -> None:
    """Write the picture as PNG: accuracy overall and per class, and the lessons' outcome."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10, 4.4), dpi=160, layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[3, 2])
        _per_class(left, answers, test)
        upper, lower = right.inset_axes((0, 0.62, 1, 0.38)), right.inset_axes((0, 0, 1, 0.36))
        right.axis("off")
        _overall(upper, measurement)
        _taught(lower, lessons)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def _per_class(axes: Axes, answers: Answers, test: Images) -> None:
    def accuracy(labels: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> list[float]:
        return [100 * float((labels[test.labels == c] == c).mean()) for c in range(len(CLASSES))]

    base, resmem = accuracy(answers.base), accuracy(answers.resmem)
    order = sorted(range(len(CLASSES)), key=lambda c: base[c], reverse=True)
    for height, c in enumerate(order):
        axes.plot([base[c], resmem[c]], [height, height], color=_GRID, linewidth=4, zorder=1)
    axes.scatter([base[c] for c in order], range(len(order)), s=64, color=_BASE, label="base")
    axes.scatter([resmem[c] for c in order], range(len(order)), s=64, color=_RESMEM, label="ResMem")
    axes.set_yticks(range(len(order)), [CLASSES[c] for c in order])
    axes.set_xlabel("right, % of the class")
    axes.set_title("Accuracy per class", loc="left", weight="bold", fontsize=11)
    axes.legend(loc="upper right", frameon=False)
    _plain(axes)


def _overall(axes: Axes, measurement: Measurement) -> None:
    rows: list[tuple[str, Interval, str]] = [
        ("ResMem", measurement.resmem, _RESMEM),
        ("plain kNN", measurement.knn, _BASE),
        ("base", measurement.base, _BASE),
    ]
    for height, (_, one, colour) in enumerate(rows):
        axes.plot([100 * one.low, 100 * one.high], [height, height], color=colour, linewidth=3)
        axes.scatter([100 * one.value], [height], s=64, color=colour, zorder=2)
        axes.annotate(
            f"{100 * one.value:.1f} %",
            (100 * one.value, height),
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
            fontsize=9,
        )
    axes.set_yticks(range(len(rows)), [label for label, _, _ in rows])
    axes.set_ylim(-0.5, len(rows) - 0.3)
    axes.set_xlabel("accuracy, %, with 95 % intervals")
    title = (
        f"All {measurement.rows:,} test images: {100 * measurement.difference.value:+.1f} points"
    )
    axes.set_title(title, loc="left", weight="bold", fontsize=11)
    _plain(axes)


def _taught(axes: Axes, lessons: Teaching) -> None:
    bars = [
        ("after kill -9", lessons.right_after_kill),
        ("next answer", lessons.right_at_once),
        ("before", 0),
    ]
    axes.barh(range(len(bars)), [value for _, value in bars], height=0.55, color=_RESMEM)
    for height, (_, value) in enumerate(bars):
        axes.annotate(
            str(value), (value, height), xytext=(4, 0), textcoords="offset points", va="center"
        )
    axes.set_yticks(range(len(bars)), [label for label, _ in bars])
    axes.set_xlim(0, 1.12 * lessons.taught)
    axes.set_xlabel("of them right")
    axes.set_title(
        f"{lessons.taught} of its mistakes, taught live", loc="left", weight="bold", fontsize=11
    )
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", color=_GRID)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
