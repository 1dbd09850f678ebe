"""The bundle that ships with the service, and the examples of the README that go with it.

`python -m benchmarks.quality.shipped_bundle` fits `model_store/fashion` on the base model of
`benchmarks.quality.fashion_mnist` (run that first), small enough for a repository: a third of the
images as memories, 32 axes of the embedding. It prints the accuracy on the 10,000 test images, sent
over HTTP, and writes `examples/fashion/`: the first test image that the service gets wrong and can
be taught, as request bodies for curl; and a sample of test images for the tests.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import image as picture
from numpy.typing import NDArray

from benchmarks.fashion_mnist import CLASSES, Images, data_folder, load
from benchmarks.quality.fit_command import fit
from benchmarks.quality.measurement import OUT, measure
from benchmarks.quality.server import Server

_ROOT = Path(__file__).parents[2]
_STORE = _ROOT / "model_store"
_EXAMPLES = _ROOT / "examples" / "fashion"
_SAMPLE = _ROOT / "tests" / "data" / "fashion_mnist_test_500.npz"
_BASE = OUT / "fashion_mnist" / "base.onnx"
_SAMPLE_ROWS = 500
_ENLARGED = 8
_OPTIONS = ("--max-memories", "20000", "--embedding-dim", "32", "--m", "12")


def main() -> None:
    """Make and measure the bundle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the four .gz files of Fashion-MNIST")
    arguments = parser.parse_args()
    if not _BASE.is_file():
        parser.exit(2, f"{_BASE} is missing: run benchmarks.quality.fashion_mnist\n")
    folder = data_folder(arguments.data)
    images, test = load("train", folder), load("t10k", folder)
    with tempfile.TemporaryDirectory() as work:
        fit(
            Path(work),
            _BASE,
            {"image": images.images, "y": images.labels},
            store=_STORE,
            name="fashion",
            options=["--classes", ",".join(CLASSES), *_OPTIONS],
        )
        with Server(_STORE, "fashion", Path(work) / "state", Path(work) / "log") as server:
            facts, answers = server.model(), server.predict(test.images)
            lesson = _first_lesson(server, test, answers.resmem, facts["teaching_weight"])
    measurement = measure(
        "shipped_bundle",
        "python -m benchmarks.quality.shipped_bundle",
        "small CNN, 2 epochs",
        facts,
        answers,
        test.labels,
    )
    measurement.print()
    measurement.save()
    _write_examples(test, lesson, facts["teaching_weight"])
    _SAMPLE.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        _SAMPLE,
        images=test.images[:_SAMPLE_ROWS],
        labels=test.labels[:_SAMPLE_ROWS].astype(np.int32),
    )
    size = sum(path.stat().st_size for path in (_STORE / "fashion").rglob("*") if path.is_file())
    print(f"\n{_STORE / 'fashion'}: {size / 1e6:.1f} MB\n{_EXAMPLES}: test image {lesson}")


def _first_lesson(server: Server, test: Images, labels: NDArray[np.int64], weight: float) -> int:
    """The first wrong test image whose label, taught once, is the next answer."""
    for row in np.flatnonzero(labels != test.labels):
        image = test.images[row : row + 1]
        server.memorize(image, [int(test.labels[row])], [f"try-{row}"], weight)
        if server.predict(image).resmem[0] == test.labels[row]:
            return int(row)
    raise RuntimeError("no mistake could be taught")


def _write_examples(test: Images, row: int, weight: float) -> None:
    shutil.rmtree(_EXAMPLES, ignore_errors=True)
    _EXAMPLES.mkdir(parents=True)
    image = test.images[row]
    question = {"inputs": [image.tolist()], "neighbours": 1, "fields": ["label"]}
    lesson = {
        "inputs": [image.tolist()],
        "targets": [CLASSES[test.labels[row]]],
        "ids": ["lesson-1"],
        "weights": [weight],
        "source": "readme",
    }
    _write(_EXAMPLES / "predict.json", question)
    _write(_EXAMPLES / "memorize.json", lesson)
    large = np.kron(255 - image, np.ones((_ENLARGED, _ENLARGED), np.uint8))
    picture.imsave(_EXAMPLES / "image.png", large, cmap="gray", vmin=0, vmax=255)


def _write(path: Path, body: dict[str, Any]) -> None:
    path.write_text(json.dumps(body, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
