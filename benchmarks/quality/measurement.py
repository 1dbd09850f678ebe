"""One result of a benchmark: what was measured, on what, by which command; kept as JSON."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.intervals import Interval, paired_accuracy, paired_rmse, rmse, wilson
from benchmarks.quality.server import Answers

__all__ = ["OUT", "Measurement", "measure"]

OUT = Path(__file__).parents[1] / "out"
"""Everything the benchmarks write that is not documentation; ignored by git."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """Base, plain kNN and ResMem over the same n test rows, each answered over HTTP."""

    name: str
    command: str
    base_model: str
    metric: Literal["accuracy", "rmse"]
    rows: int
    memories: int
    parameters: dict[str, float]
    """As in `GET /model`: k, sigma, temperature, alpha, ef."""
    embedding_dim: int
    base: Interval
    knn: Interval
    resmem: Interval
    difference: Interval
    """ResMem minus base, paired over the rows."""

    def print(self) -> None:
        """Print the table."""
        unit, factor = ("%", 100) if self.metric == "accuracy" else ("", 1)
        digits = 2 if self.metric == "accuracy" else 4
        print(f"\n{self.name}: {self.metric} over {self.rows:,} test rows sent over HTTP")
        for label, one in (
            ("base", self.base),
            ("plain kNN", self.knn),
            ("ResMem", self.resmem),
            ("ResMem - base", self.difference),
        ):
            sign = "+" if one is self.difference else ""
            value, low, high = (
                f"{factor * x:{sign}.{digits}f}" for x in (one.value, one.low, one.high)
            )
            print(f"  {label:14} {value:>8} {unit} [{low}, {high}]")
        print(f"  {self.memories:,} memories, d = {self.embedding_dim}, {self.parameters}")

    def save(self, **more: Any) -> Path:
        """Write `benchmarks/out/<name>.json`, with `more` keys beside the fields."""
        path = OUT / f"{self.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self) | more, indent=2) + "\n")
        return path


def measure(
    name: str,
    command: str,
    base_model: str,
    facts: dict[str, Any],
    answers: Answers,
    truth: NDArray[Any],
) -> Measurement:
    """Judge answers to n rows against the truth [n]; `facts` is the body of `GET /model`."""
    if facts["task"] == "classification":
        right = [np.equal(answer, truth) for answer in (answers.base, answers.knn, answers.resmem)]
        base, knn, resmem = (wilson(one) for one in right)
        difference = paired_accuracy(right[0], right[2])
    else:
        errors = [
            np.asarray(answer - truth, np.float64)
            for answer in (answers.base, answers.knn, answers.resmem)
        ]
        base, knn, resmem = (rmse(one) for one in errors)
        difference = paired_rmse(errors[0], errors[2])
    return Measurement(
        name=name,
        command=command,
        base_model=base_model,
        metric="accuracy" if facts["task"] == "classification" else "rmse",
        rows=len(truth),
        memories=facts["memory"]["size"],
        parameters=facts["parameters"],
        embedding_dim=facts["embedding"]["dim"],
        base=base,
        knn=knn,
        resmem=resmem,
        difference=difference,
    )
