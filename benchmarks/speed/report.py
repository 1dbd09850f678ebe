"""`docs/speed.md` and its picture, written from the results that the other benchmarks left.

`python -m benchmarks.speed.report` reads `benchmarks/out/{compare,overload,idle}.json`; run the
benchmarks first. What was not run is left out of the page.
"""

import json
from pathlib import Path
from typing import Any

from benchmarks.speed.chart import draw

__all__ = ["comparison_table", "page", "ratios"]

_OUT = Path("benchmarks/out")
_DOCS = Path(__file__).parents[2] / "docs"
_PICTURE = "images/speed.png"

_HEAD = """# How fast it is

Written by `python -m benchmarks.speed.report` from the last run of the commands named below.
"""

_OWN = """
## Your own server

```
pip install 'resmem-service[bench]'
resmem bench --url http://127.0.0.1:8080 --data test.npz --concurrency 64 --rows 1 --duration 10
```

`--data` takes the files that `resmem fit` takes, or a body of `/predict` as `.json` (for the
shipped bundle `examples/fashion/predict.json`). It prints throughput, latency, requests by status
and, where the server runs on the same machine, its CPU time per request, and saves a plot of the
latencies: their spread, and how they went over time. By default each connection sends again when it
is answered; with `--rate` requests are due at even distances, and a latency counts from the moment
a request was due, sent or not, so that a server which stalls cannot hide it by slowing its clients
down ("coordinated omission"). Requests never answered count with the time that they waited.
"""


def main() -> None:
    """Writes the page and the picture."""
    results = {
        name: json.loads(path.read_text())
        for name in ("compare", "overload", "idle")
        if (path := _OUT / f"{name}.json").is_file()
    }
    if "compare" in results:
        draw(_DOCS / _PICTURE, results["compare"])
    (_DOCS / "speed.md").write_text(page(results))
    print(_DOCS / "speed.md")


def page(results: dict[str, Any]) -> str:
    """The page, of results by the name of their file."""
    parts = [_HEAD]
    if "compare" in results:
        parts.append(_comparison(results["compare"]))
    if "overload" in results:
        parts.append(_overload(results["overload"]))
    if "idle" in results:
        parts.append(_idle(results["idle"]))
    return "".join([*parts, _OWN])


def comparison_table(results: dict[str, Any]) -> str:
    """The servers of `compare.json`, least CPU time first."""
    lines = [
        "| | CPU us a request | requests/s | p50, p99 ms | one connection: CPU us | p50, p99 ms |",
        "|---|---|---|---|---|---|",
    ]
    for one in sorted(results["servers"], key=lambda one: one["load"]["64"]["cpu_us"]):
        many, alone = one["load"]["64"], one["load"]["1"]
        title = f"**{one['title']}**" if one["name"].startswith("resmem") else one["title"]
        lines.append(
            f"| {title} | {many['cpu_us']:,.0f} | {many['requests_per_s']:,.0f} | "
            f"{many['p50_ms']:.1f}, {many['p99_ms']:.1f} | {alone['cpu_us']:,.0f} | "
            f"{alone['p50_ms']:.2f}, {alone['p99_ms']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def ratios(results: dict[str, Any]) -> dict[str, float]:
    """What the table says of ResMem against others, each from this one run."""
    found = {one["name"]: one["load"] for one in results["servers"]}
    base, memory = found["resmem-base"], found["resmem-memory"]

    def cpu(name: str) -> float:
        value: float = found[name]["64"]["cpu_us"]
        return value

    rate = memory["64"]["requests_per_s"]
    return {
        "base, CPU us a request": base["64"]["cpu_us"],
        "base: CPU of mosec's": base["64"]["cpu_us"] / cpu("mosec"),
        "base: CPU of FastAPI's": base["64"]["cpu_us"] / cpu("fastapi_plain"),
        "60,000 memories: CPU of FastAPI's on the base alone": memory["64"]["cpu_us"]
        / cpu("fastapi_plain"),
        "60,000 memories: throughput of LitServe's on the base alone": rate
        / found["litserve"]["64"]["requests_per_s"],
        "60,000 memories: throughput of BentoML's on the base alone": rate
        / found["bentoml"]["64"]["requests_per_s"],
        "60,000 memories, one connection: p50 of the search in line": memory["1"]["p50_ms"]
        / found["asgi_search"]["1"]["p50_ms"],
    }


def _comparison(results: dict[str, Any]) -> str:
    machine = results["machine"]
    seconds = results["seconds"]
    lines = "\n".join(f"| {name} | {value:.2f} |" for name, value in ratios(results).items())
    versions: dict[str, str] = {}
    for one in results["servers"]:
        pairs = ", ".join(f"{name} {version}" for name, version in one["versions"].items())
        versions.setdefault(pairs, one["title"])
    listed = "\n".join(f"- {title}: {pairs}" for pairs, title in versions.items())
    return f"""
## Beside other servers

![CPU time per request of each server](images/speed.png)

One row of 64 numbers as JSON, a 64-128-10 perceptron on scikit-learn's digits, 64 connections and
one, each of which sends again when it is answered. All of them run the same ONNX file with one
worker, the others with one thread of ONNX Runtime; ResMem's answers are its default ones, with
label, scores, base and correction. Every server's scores were compared with ONNX Runtime's before
it was timed. The memory of 60,000 has d = 64, k = 50, ef = {results["ef"]}: recall@50
{results["recall"]:.3f}.

CPU time is that of the server's process and all below it, from the system's count. **The load
generator shares the {machine["cores"]} cores with the server**, so requests per second and
latencies are those of a server that has a neighbour; CPU time per request hardly depends on it.
Medians of {results["rounds"]} rounds, each of which starts every server anew, {seconds["64"]:g} s
at 64 connections and {seconds["1"]:g} s at one. {machine["processor"]}, Python {machine["python"]}.

{comparison_table(results)}
How each is set up, and why, stands in its file in `benchmarks/speed/servers/`. Where a server
gathers batches on a timer, the wait shows at one connection.

| of this one run | |
|---|---|
{lines}

`python -m benchmarks.speed.compare`; `make bench-servers` installs the other servers, each in an
environment of its own:

{listed}
"""


def _overload(results: list[dict[str, float]]) -> str:
    rows = []
    for one in results:
        refused = f"{one['refused_per_s']:,.0f}/s" if one["refused_per_s"] else "none"
        took = f", p99 {one['refused_p99_ms']:.1f} ms" if one["refused_per_s"] else ""
        rows.append(
            f"| {one['rows']:.0f}, {one['connections']:,.0f} | {one['peak_per_s']:,.0f} | "
            f"{one['due_per_s']:,.0f} | {one['goodput_per_s']:,.0f} "
            f"({100 * one['goodput_share']:.0f} %) | {refused}{took} | "
            f"{one['rss_first_mb']:.0f}, {one['rss_last_mb']:.0f} | "
            f"{one['drain_s']:.2f} | "
            f"{one['light_p99_ms_before']:.1f}, {one['light_p99_ms_after']:.1f} |"
        )
    listed = "\n".join(rows)
    return f"""
## Ten times too much

The server with 60,000 memories: its peak with up to 64 connections, then ten times as many requests
due per second over ten times as many connections, then 0.3 of its peak. Requests of one row are
held back by their connections, since each has one under way; large ones fill the queue and are
refused with 429. How long a refusal takes is measured from when the request was sent.

| rows a request, connections | peak/s | due/s | answered/s | refused | \
RSS MB, first and last round | backlog gone after s | p99 ms at 0.3 of the peak, before and after |
|---|---|---|---|---|---|---|---|
{listed}

`python -m benchmarks.speed.overload`
"""


def _idle(results: dict[str, float]) -> str:
    rows = "\n".join(
        f"| {workers} | {results[f'ready_{workers}_s']:.2f} | "
        f"{100 * results[f'idle_{workers}_share']:.2f} |"
        for workers in (1, 2)
    )
    return f"""
## Nothing to do

| workers | seconds from the start of the process to ready | idle, % of a core |
|---|---|---|
{rows}

60,000 memories, files in the page cache. `python -m benchmarks.speed.idle`
"""


if __name__ == "__main__":
    main()
