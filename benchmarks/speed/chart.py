"""The picture of the comparison: CPU time per request of each server."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

__all__ = ["draw"]

_OTHER, _FLOOR, _RESMEM, _INK, _GRID = "#9aa5b1", "#d3dae2", "#0f766e", "#1f2933", "#e4e7eb"
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.edgecolor": _GRID,
}


def draw(path: Path, results: dict[str, Any]) -> None:
    """Write a PNG of `compare.json`: each server at 64 connections, least at the top.

    A dot is the median of the rounds, a line goes from the lowest to the highest.
    """
    servers = sorted(results["servers"], key=lambda one: one["load"]["64"]["cpu_us"], reverse=True)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10, 0.4 * len(servers) + 1.2), dpi=160, layout="constrained")
        axes = figure.subplots()
        for height, one in enumerate(servers):
            load = one["load"]["64"]
            value = load["cpu_us"]
            low, high = load["cpu_us_lowest"], load["cpu_us_highest"]
            axes.plot([low, high], [height, height], color=_INK, linewidth=1, zorder=1)
            axes.scatter([value], [height], s=72, color=_colour(one["name"]), zorder=2)
            axes.annotate(
                f"{value:,.0f}",
                (max(value, high), height),
                xytext=(8, 0),
                textcoords="offset points",
                va="center",
            )
        axes.set_yticks(range(len(servers)), [one["title"] for one in servers])
        axes.set_xscale("log")
        values = [one["load"]["64"]["cpu_us"] for one in servers]
        axes.set_xlim(0.7 * min(values), 2 * max(values))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set_xlabel("CPU microseconds per request, all processes of the server, 64 connections")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.grid(color=_GRID)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, which="both")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def _colour(name: str) -> str:
    if name.startswith("resmem"):
        return _RESMEM
    return _FLOOR if name.startswith(("constant", "asgi")) else _OTHER
