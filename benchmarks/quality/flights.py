"""A year of drift: a model of January and February, and a memory that learns what became of it.

`python -m benchmarks.quality.flights` fits a linear regression of the minutes in the air to the
first two months. From March on it asks the server each day for all flights of that day, before any
of them has left, and memorizes them when the day is over. A second server has the same bundle and
learns nothing. Everything goes over HTTP; no day is seen before it is asked for. The memory knows
the day of a flight, the base gives it no weight: so memories of last week are nearer than those of
last winter, and nothing needs to be forgotten.
"""

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.flights import Flights, load_flights
from benchmarks.linear_model import export_linear, least_squares
from benchmarks.quality.fit_command import fit
from benchmarks.quality.intervals import Interval, paired_rmse, rmse
from benchmarks.quality.measurement import OUT
from benchmarks.quality.server import Server

_FITTED_DAYS = 59
"""January and February."""
_WEEK = 7
_SETTINGS = {"RESMEM_GROWING_BYTES": str(2**20)}
"""Rows of 7 numbers are so small that 8 MB of them, the default, take long to search exactly."""
_CHART = Path(__file__).parents[2] / "docs" / "images" / "flights.png"
_COMMAND = "python -m benchmarks.quality.flights"

Errors = dict[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Drift:
    """RMSE in minutes over all flights after February; intervals over whole days."""

    command: str
    rows: int
    fitted: int
    memories: int
    """At the end of the year."""
    base: Interval
    frozen: Interval
    learning: Interval
    difference: Interval
    """Learning minus base, paired over the flights."""


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of flights.csv.zip and airports.csv")
    parser.add_argument("--days", type=int, default=365, help="where in the year to stop")
    arguments = parser.parse_args()
    flights = load_flights(arguments.data)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        _fit(work, flights)
        with (
            _server(work, "frozen") as frozen,
            _server(work, "learning") as learning,
        ):
            days = range(_FITTED_DAYS, min(arguments.days, int(flights.day.max()) + 1))
            errors = _year(flights, days, frozen, learning)
            memories = int(learning.model()["memory"]["size"])
    whole = errors["day"].astype(np.int64)
    drift = Drift(
        command=_COMMAND,
        rows=len(errors["base"]),
        fitted=int((flights.day < _FITTED_DAYS).sum()),
        memories=memories,
        base=rmse(errors["base"], whole),
        frozen=rmse(errors["frozen"], whole),
        learning=rmse(errors["learning"], whole),
        difference=paired_rmse(errors["base"], errors["learning"], whole),
    )
    print(f"\n{drift.rows:,} flights after February, RMSE in minutes")
    for name in ("base", "frozen", "learning", "difference"):
        one: Interval = getattr(drift, name)
        print(f"  {name:10} {one.value:7.2f} [{one.low:.2f}, {one.high:.2f}]")
    _draw(errors, _CHART)
    out = OUT / "flights.json"
    out.write_text(json.dumps(asdict(drift), indent=2) + "\n")
    print(f"{drift.memories:,} memories at the end\n\n{out}\n{_CHART}")


def _server(work: Path, state: str) -> Server:
    return Server(work / "store", "flights", work / state, work / "log", _SETTINGS)


def _fit(work: Path, flights: Flights) -> None:
    fitted = flights.day < _FITTED_DAYS
    features, minutes = flights.features[fitted], flights.air_time[fitted]
    weights, bias = least_squares(features[:, :-1], minutes)
    blind = np.concatenate([weights, np.zeros((1, 1))], axis=1)
    export_linear(work / "base.onnx", blind, bias, "air_time")
    fit(
        work,
        work / "base.onnx",
        {"features": features, "y": minutes},
        store=work / "store",
        name="flights",
        options=["--embedding", "input", "--task", "regression"],
    )


def _year(flights: Flights, days: range, frozen: Server, learning: Server) -> Errors:
    """Ask for each day, then learn it; errors [n] by name, and the `day` of each flight."""
    found: dict[str, list[NDArray[np.float64]]] = {
        name: [] for name in ("base", "frozen", "learning", "day")
    }
    for day in days:
        rows = flights.day == day
        features, minutes = flights.features[rows], flights.air_time[rows]
        _, still = frozen.values(features)
        base, learned = learning.values(features)
        for name, values in (("base", base), ("frozen", still), ("learning", learned)):
            found[name].append(values - minutes)
        found["day"].append(np.full(len(minutes), float(day)))
        ids = [f"{day}-{number}" for number in range(len(minutes))]
        learning.memorize(features, minutes.tolist(), ids, 1.0)
        if (day + 1) % 30 == 0:
            week = [f"{name} {_recent(found[name]):.1f}" for name in ("base", "frozen", "learning")]
            print(f"day {day + 1}: last week's RMSE: {', '.join(week)}", flush=True)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _recent(errors: list[NDArray[np.float64]]) -> float:
    return float(np.sqrt(np.square(np.concatenate(errors[-_WEEK:])).mean()))


def _draw(errors: Errors, path: Path) -> None:
    figure = Figure(figsize=(8, 3.2), dpi=160, layout="constrained")
    axes = figure.subplots()
    weeks = ((errors["day"] - _FITTED_DAYS) // _WEEK).astype(np.int64)
    counts = np.bincount(weeks)
    for name, label, colour, width in (
        ("base", "base", "#9aa5b1", 2),
        ("frozen", "with a frozen memory", "#b7791f", 2),
        ("learning", "with a memory that learns each day", "#0f766e", 2.5),
    ):
        weekly = np.sqrt(np.bincount(weeks, np.square(errors[name])) / counts)
        days = _FITTED_DAYS + _WEEK * (np.arange(len(weekly)) + 0.5)
        axes.plot(days, weekly, color=colour, linewidth=width, label=label)
    starts = np.cumsum([59, 31, 30, 31, 30, 31, 31, 30, 31, 30])
    axes.set_xticks(starts, ["Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"])
    axes.set_ylim(bottom=0)
    axes.set_ylabel("RMSE of a week, minutes")
    axes.set_title(
        "Minutes in the air, model of January and February", loc="left", weight="bold", fontsize=11
    )
    axes.legend(frameon=False, loc="lower left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e4e7eb")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


if __name__ == "__main__":
    main()
