import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.quality import measurement
from benchmarks.quality.measurement import measure
from benchmarks.quality.server import Answers

METADATA: dict[str, Any] = {
    "task": "classification",
    "memory": {"size": 7},
    "parameters": {"k": 3, "sigma": 0.5},
    "embedding": {"dim": 2},
}


def test_accuracies_are_shares_of_right_labels_and_their_paired_difference() -> None:
    answers = Answers(
        base=np.array([0, 1, 1, 0]),
        knn=np.array([0, 0, 1, 1]),
        resmem=np.array([0, 1, 1, 1]),
        nearest=["a", "b", "c", "d"],
    )
    one = measure("name", "command", "base", METADATA, answers, np.array([0, 1, 0, 1]))
    assert (one.base.value, one.knn.value, one.resmem.value) == (0.5, 0.5, 0.75)
    assert one.difference.value == 0.25
    assert (one.rows, one.memories, one.embedding_dim) == (4, 7, 2)


def test_errors_of_a_regression_are_root_mean_squares() -> None:
    answers = Answers(
        base=np.array([1.0, -1.0]), knn=np.zeros(2), resmem=np.array([0.5, 0.5]), nearest=["", ""]
    )
    one = measure("n", "c", "b", METADATA | {"task": "regression"}, answers, np.zeros(2))
    assert (one.base.value, one.knn.value, one.resmem.value) == pytest.approx((1, 0, 0.5))
    assert one.difference.value == pytest.approx(-0.5)


def test_a_result_is_saved_with_what_belongs_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurement, "OUT", tmp_path / "out")
    answers = Answers(np.zeros(2), np.zeros(2), np.zeros(2), ["", ""])
    path = measure("name", "c", "b", METADATA, answers, np.zeros(2)).save(teaching={"taught": 3})
    assert path == tmp_path / "out" / "name.json"
    saved = json.loads(path.read_text())
    assert saved["resmem"]["value"] == 1
    assert saved["teaching"] == {"taught": 3}
