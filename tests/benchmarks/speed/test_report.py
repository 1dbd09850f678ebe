from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from benchmarks.speed.chart import draw
from benchmarks.speed.report import comparison_table, page, ratios

NAMES = (
    "resmem-base",
    "resmem-memory",
    "asgi_search",
    "mosec",
    "fastapi_plain",
    "litserve",
    "bentoml",
)


def results() -> dict[str, Any]:
    """As `compare` writes them; the n-th server takes n times 10 us."""

    def load(number: int) -> dict[str, float]:
        cpu = 10.0 * number
        return {
            "cpu_us": cpu,
            "cpu_us_lowest": cpu - 1,
            "cpu_us_highest": cpu + 1,
            "requests_per_s": 1e5 / number,
            "p50_ms": 0.1 * number,
            "p99_ms": 0.2 * number,
        }

    servers = [
        {
            "name": name,
            "title": name.upper(),
            "versions": {name: "1.0"},
            "load": {"64": load(number), "1": load(number)},
        }
        for number, name in enumerate(NAMES, 1)
    ]
    machine = {"processor": "a processor", "cores": 2, "python": "3.11"}
    return {
        "machine": machine, "rounds": 3, "seconds": {"64": 3.0, "1": 2.0}, "recall": 0.99, "ef": 50,
        "servers": servers[::-1],
    }  # fmt: skip


def test_the_table_is_in_order_and_marks_ours() -> None:
    lines = comparison_table(results()).splitlines()[2:]
    assert [line.split("|")[1].strip(" *") for line in lines] == [name.upper() for name in NAMES]
    assert [line.startswith("| **") for line in lines] == [True, True] + [False] * 5
    assert "| 10 | 100,000 | 0.1, 0.2 |" in lines[0]


def test_ratios_are_of_the_same_run() -> None:
    found = ratios(results())
    assert found["base: CPU of mosec's"] == pytest.approx(10 / 40)
    assert found["60,000 memories: CPU of FastAPI's on the base alone"] == pytest.approx(20 / 50)
    assert found["60,000 memories: throughput of BentoML's on the base alone"] == pytest.approx(
        7 / 2
    )
    assert found["60,000 memories, one connection: p50 of the search in line"] == pytest.approx(
        2 / 3
    )


def test_what_was_not_run_is_left_out() -> None:
    assert "Beside other servers" not in page({})
    whole = page(
        {
            "compare": results(),
            "idle": {
                "ready_1_s": 0.5, "idle_1_share": 0.003, "ready_2_s": 0.9, "idle_2_share": 0.004
            },
            "overload": [
                {
                    "rows": 1, "connections": 64, "peak_per_s": 100.0, "due_per_s": 1000.0,
                    "goodput_per_s": 95.0, "goodput_share": 0.95, "refused_per_s": 0.0,
                    "refused_p99_ms": float("nan"), "rss_first_mb": 100.0,
                    "rss_last_mb": 101.0, "drain_s": 0.5, "light_p99_ms_before": 1.0,
                    "light_p99_ms_after": 1.1,
                }
            ],
        }
    )  # fmt: skip
    assert "| 1 | 0.50 | 0.30 |" in whole
    assert "95 (95 %) | none | 100, 101 |" in whole
    assert "a processor" in whole
    assert "nan" not in whole


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    draw(tmp_path / "images" / "speed.png", results())
    pixels = matplotlib.image.imread(tmp_path / "images" / "speed.png")[..., :3] * 255
    ours, other = np.array([15, 118, 110]), np.array([154, 165, 177])
    dots = [(np.abs(pixels - colour).max(axis=2) < 2).sum() for colour in (ours, other)]
    assert dots[0] > 100, "two dots of our colour"
    assert dots[1] > dots[0], "and four of the others'"
