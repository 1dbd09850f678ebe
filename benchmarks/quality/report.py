"""`docs/quality.md`, written from the results that the other benchmarks left.

`python -m benchmarks.quality.report` reads `benchmarks/out/*.json`; run the benchmarks first. What
was not run is left out of the page.
"""

import json
from pathlib import Path
from typing import Any

from benchmarks.quality.measurement import OUT

_PAGE = Path(__file__).parents[2] / "docs" / "quality.md"

_DATA = {
    "fashion_mnist": ("Fashion-MNIST", "accuracy, %"),
    "shipped_bundle": ("Fashion-MNIST, the bundle that ships", "accuracy, %"),
    "letter_recognition": ("LetterRecognition", "accuracy, %"),
    "diamonds": ("diamonds", "RMSE of the log price"),
    "diamonds_dollars": ("diamonds", "RMSE, dollars"),
}
"""Name of a result: what the page calls its data and unit."""

_COLUMNS = ("data, test rows; unit", "base model", "memories", "base", "plain kNN", "ResMem")

_HEAD = """# What the memory does to the answers

Written by `python -m benchmarks.quality.report` from the last run of each command below. `resmem
fit` made each memory and chose its parameters on training rows alone; `resmem serve` gave every
answer over HTTP. What a base is (layers, epochs, features, seed) was settled by hand, that of
Fashion-MNIST among a few whose test accuracy, without and with a memory, was known. Brackets hold
95 % intervals: Wilson's for an accuracy, a bootstrap over the rows for an error; the last column is
paired over the rows. They cover the draw of the test rows, not that of the base. "Plain kNN" is the
vote of the same neighbours' targets, without the base.

"""


def main() -> None:
    """Write the page."""
    results = {path.stem: json.loads(path.read_text()) for path in sorted(OUT.glob("*.json"))}
    parts = [_HEAD, _table(results), _seeds(results), _teaching(results), _drift(results)]
    _PAGE.write_text("".join(parts).rstrip("\n") + "\n")
    print(_PAGE)


def _table(results: dict[str, dict[str, Any]]) -> str:
    lines = [f"| {' | '.join(_COLUMNS)} | ResMem less base |", "|---" * (len(_COLUMNS) + 1) + "|"]
    commands = []
    for name, (data, unit) in _DATA.items():
        if name not in results:
            continue
        one = results[name]
        scale = 100 if one["metric"] == "accuracy" else 1
        cells = [_interval(one[key], scale) for key in ("base", "knn", "resmem")]
        cells.append(_interval(one["difference"], scale, "+"))
        lines.append(
            f"| {data}, {one['rows']:,}; {unit} | {one['base_model']} | {one['memories']:,} | "
            f"{' | '.join(cells)} |"
        )
        if (command := f"- {data}: `{one['command']}`") not in commands:
            commands.append(command)
    return "\n".join([*lines, "", *commands, ""])


def _seeds(results: dict[str, dict[str, Any]]) -> str:
    """Other bases by the recipe of Fashion-MNIST."""
    others = [one for name, one in results.items() if name.startswith("fashion_mnist_seed_")]
    if not others:
        return ""
    lines = ["", "Fashion-MNIST with other seeds of the base, accuracy in %:", ""]
    for one in others:
        base, resmem = (_interval(one[key], 100) for key in ("base", "resmem"))
        more = _interval(one["difference"], 100, "+")
        lines.append(f"- `{one['command']}`: base {base}, ResMem {resmem}, difference {more}")
    return "\n".join([*lines, ""])


def _teaching(results: dict[str, dict[str, Any]]) -> str:
    lessons = results.get("fashion_mnist", {}).get("teaching")
    if lessons is None:
        return ""
    taught = lessons["taught"]
    return f"""
## Teaching it live

{taught} Fashion-MNIST test images that it got wrong, corrected with one `/memorize` each at the
recommended teaching weight ({lessons["weight"]:g}), in the order of the file:

| | |
|---|---|
| right in the next answer | {lessons["right_at_once"]} of {taught} |
| the lesson is the first neighbour of that answer | {lessons["nearest_at_once"]} of {taught} |
| right after all lessons, `kill -9` and a restart | {lessons["right_after_kill"]} of {taught} |
| right of the {lessons["others"]:,} other test images, before the lessons | \
{lessons["others_right_before"]:,} |
| right of them after the lessons | {lessons["others_right_after"]:,} |
"""


def _drift(results: dict[str, dict[str, Any]]) -> str:
    if "flights" not in results:
        return ""
    one = results["flights"]
    return f"""
## A world that drifts

![RMSE per week: base, frozen memory, and a memory that learns each day](images/flights.png)

Minutes in the air of flights out of New York in 2013. The base is a linear regression of January
and February; each day from March on, the server is asked for all flights of the day before they
leave, and learns them when the day is over. {one["rows"]:,} flights, {one["fitted"]:,} memories at
the start, {one["memories"]:,} at the end; RMSE in minutes, intervals by a bootstrap over days:

| base | with a frozen memory | with a memory that learns each day | learning less base |
|---|---|---|---|
| {_interval(one["base"], 1)} | {_interval(one["frozen"], 1)} | {_interval(one["learning"], 1)} | \
{_interval(one["difference"], 1, "+")} |

`{one["command"]}`
"""


def _interval(one: dict[str, float], scale: float, sign: str = "") -> str:
    """Value and ends, with about three digits."""
    size = abs(scale * one["value"])
    digits = 0 if size >= 100 else 1 if size >= 1 and scale > 1 else 2 if size >= 1 else 4
    value, low, high = (f"{scale * one[key]:{sign},.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


if __name__ == "__main__":
    main()
