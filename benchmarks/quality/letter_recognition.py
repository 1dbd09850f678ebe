"""Handwritten letters: a logistic regression, corrected by the memory of its training rows.

`python -m benchmarks.quality.letter_recognition` fits 16 features to 26 letters, the simplest base
there is, so `resmem fit --embedding input` finds neighbours by the standardised features. The last
4,000 rows of the table are the test, sent over HTTP.

Needs the extra `bench` and, to read the table, `pip install rdata`.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from benchmarks.linear_model import export_linear
from benchmarks.quality.fit_command import fit
from benchmarks.quality.measurement import measure
from benchmarks.quality.server import Server
from benchmarks.tables import LETTERS, letters


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="LetterRecognition.rda of R's mlbench")
    split = letters(parser.parse_args().data)
    model = LogisticRegression(max_iter=1000)
    # Standardised for the solver's sake; the model that is served takes the features as they are.
    mean, deviation = split.train_x.mean(axis=0), split.train_x.std(axis=0)
    model.fit((split.train_x - mean) / deviation, split.train_y)
    weights = model.coef_ / deviation
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        base = work / "base.onnx"
        export_linear(base, weights, model.intercept_ - weights @ mean, "logits")
        fit(
            work,
            base,
            {"features": split.train_x, "y": split.train_y},
            store=work / "store",
            name="letters",
            options=["--embedding", "input", "--classes", ",".join(LETTERS)],
        )
        with Server(work / "store", "letters", work / "state", work / "log") as server:
            facts, answers = server.model(), server.predict(split.test_x)
    measurement = measure(
        "letter_recognition",
        "python -m benchmarks.quality.letter_recognition",
        "logistic regression",
        facts,
        answers,
        np.asarray(split.test_y),
    )
    measurement.print()
    print(f"\n{measurement.save()}")


if __name__ == "__main__":
    main()
