"""The quality page says what the results say, and nothing that no result says."""

import json
from pathlib import Path

import pytest

from benchmarks.quality import report


def result(base: float, resmem: float, command: str) -> dict[str, object]:
    values = {"base": base, "knn": base, "resmem": resmem, "difference": resmem - base}
    intervals = {
        name: {"value": value, "low": value - 0.01, "high": value + 0.01}
        for name, value in values.items()
    }
    return {
        "metric": "accuracy",
        "rows": 10_000,
        "memories": 60_000,
        "base_model": "a model",
        "command": command,
        **intervals,
    }


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(report, "OUT", tmp_path)
    monkeypatch.setattr(report, "_PAGE", tmp_path / "quality.md")
    return tmp_path


def page(out: Path) -> str:
    report.main()
    return (out / "quality.md").read_text()


def test_other_seeds_are_told_from_their_results(out: Path) -> None:
    (out / "fashion_mnist.json").write_text(json.dumps(result(0.86, 0.89, "command 0")))
    assert "seed" not in page(out).partition("Plain kNN")[2]
    (out / "fashion_mnist_seed_1.json").write_text(json.dumps(result(0.874, 0.897, "command 1")))
    (out / "fashion_mnist_seed_2.json").write_text(json.dumps(result(0.875, 0.896, "command 2")))
    text = page(out)
    assert text.count("| Fashion-MNIST, 10,000;") == 1
    assert (
        "- `command 1`: base 87.4 [86.4, 88.4], ResMem 89.7 [88.7, 90.7], "
        "difference +2.3 [+1.3, +3.3]\n"
        "- `command 2`: base 87.5 [86.5, 88.5], ResMem 89.6 [88.6, 90.6], "
        "difference +2.1 [+1.1, +3.1]\n"
    ) in text


def test_without_results_there_is_no_number(out: Path) -> None:
    assert not any(character.isdigit() for character in page(out).replace("95 %", ""))
