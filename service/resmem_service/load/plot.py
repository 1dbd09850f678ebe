"""The picture of a load: how latency is spread, and how it went over time."""

from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from resmem_service.errors import LoadFailed
from resmem_service.load.result import RequestGroup, Result

__all__ = ["draw"]

_LINE, _MARK, _INK, _GRID = "#0f766e", "#9aa5b1", "#1f2933", "#e4e7eb"
_STYLE: Final[dict[Any, Any]] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.edgecolor": _GRID,
}
_SLICES: Final = 60


def draw(path: Path, result: Result, title: str) -> None:
    """Write a PNG: the share of requests answered within a time, and p50 and p99 over the load.

    Raises:
        LoadFailed: the file cannot be written.
    """
    served = result.served
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10, 4), dpi=160, layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=10, color=_INK)
        left, right = figure.subplots(1, 2)
        if len(served):
            _spread(left, served)
            _course(right, served, result.seconds)
        try:
            figure.savefig(path, format="png")
        except OSError as error:
            raise LoadFailed(f"{path} cannot be written: {error.strerror}", "plot") from None


def _spread(axes: Axes, served: RequestGroup) -> None:
    latency = np.sort(served.latency) * 1e3
    shares = 100 * np.arange(1, len(latency) + 1) / len(latency)
    axes.plot(latency, shares, color=_LINE, linewidth=2)
    for share in (50, 90, 99):
        value = served.percentile_ms(share)
        axes.plot([value, value], [0, share], color=_MARK, linewidth=1, linestyle=":")
        axes.annotate(
            f"p{share} {value:.2f} ms",
            (value, share),
            xytext=(6, -11),
            textcoords="offset points",
            fontsize=9,
        )
    axes.set_xscale("log")
    _milliseconds(axes.xaxis)
    axes.set_ylim(0, 102)
    axes.set_xlabel("latency, ms")
    axes.set_ylabel("requests answered within it, %")
    _plain(axes)


def _course(axes: Axes, served: RequestGroup, seconds: float) -> None:
    """Each slice of time has at least one request: a stall shows as a gap in neither line."""
    edges = np.linspace(0, seconds, _SLICES + 1)
    slices = np.digitize(served.due, edges[1:-1])
    middles, p50, p99 = [], [], []
    for number in range(_SLICES):
        latency = served.latency[slices == number]
        if len(latency):
            middles.append((edges[number] + edges[number + 1]) / 2)
            p50.append(float(np.percentile(latency, 50)) * 1e3)
            p99.append(float(np.percentile(latency, 99)) * 1e3)
    axes.plot(middles, p99, color=_MARK, linewidth=1.5, label="p99")
    axes.plot(middles, p50, color=_LINE, linewidth=2, label="p50")
    axes.set_yscale("log")
    _milliseconds(axes.yaxis)
    axes.set_xlim(0, seconds)
    axes.set_xlabel("time when the request was due, s")
    axes.set_ylabel("latency, ms")
    axes.legend(frameon=False, loc="upper right")
    _plain(axes)


def _milliseconds(axis: Axis) -> None:
    """1, 2, 5, 10 and so on, written out; a logarithmic axis puts powers of ten there."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=_GRID)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, which="both")
