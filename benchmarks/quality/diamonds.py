"""Prices of diamonds: a linear regression on the log price, corrected by the memory.

`python -m benchmarks.quality.diamonds` has no embedding but the features, standardised by
`resmem fit --embedding input`. 10,000 diamonds drawn at random are the test, sent over HTTP; the
error is printed as fitted, in the logarithm, and in dollars.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.linear_model import export_linear, least_squares
from benchmarks.quality.fit_command import fit
from benchmarks.quality.measurement import measure
from benchmarks.quality.server import Answers, Server
from benchmarks.tables import diamonds

_COMMAND = "python -m benchmarks.quality.diamonds"
_BASE = "linear regression"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="diamonds.csv of plotnine")
    split = diamonds(parser.parse_args().data)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        base = work / "base.onnx"
        export_linear(base, *least_squares(split.train_x, split.train_y), "log_price")
        fit(
            work,
            base,
            {"features": split.train_x, "y": split.train_y},
            store=work / "store",
            name="diamonds",
            options=["--embedding", "input", "--task", "regression"],
        )
        with Server(work / "store", "diamonds", work / "state", work / "log") as server:
            facts, answers = server.model(), server.predict(split.test_x)
    truth = np.asarray(split.test_y, np.float64)
    dollars = Answers(
        np.exp(answers.base), np.exp(answers.knn), np.exp(answers.resmem), answers.nearest
    )
    for measurement in (
        measure("diamonds", _COMMAND, _BASE, facts, answers, truth),
        measure("diamonds_dollars", _COMMAND, _BASE, facts, dollars, np.exp(truth)),
    ):
        measurement.print()
        print(measurement.save())


if __name__ == "__main__":
    main()
