"""Fashion-MNIST end to end: train the base, fit its memory, serve it, test and teach it over HTTP.

`python -m benchmarks.quality.fashion_mnist` trains a small CNN on the 60,000 training images, makes
each of them a memory, sends the 10,000 test images to the real server and prints base and ResMem
accuracy. `resmem fit` sees only training images, so nothing about the memory is chosen on a test
image; the recipe of the base is fixed, see `benchmarks.fashion_cnn`. Some minutes on two CPU cores.
`--seed 1` is another base by the same recipe, with a result of its own.
"""

import argparse
import shutil
from dataclasses import asdict
from pathlib import Path

from benchmarks.fashion_cnn import export, train
from benchmarks.fashion_mnist import CLASSES, Images, data_folder, load
from benchmarks.quality.chart import draw
from benchmarks.quality.fit_command import fit
from benchmarks.quality.measurement import OUT, measure
from benchmarks.quality.server import Answers, Server
from benchmarks.quality.teaching import Teaching, teach

_NAME = "fashion_mnist"
_CHART = Path(__file__).parents[2] / "docs" / "images" / "fashion_mnist.png"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the four .gz files of Fashion-MNIST")
    parser.add_argument("--epochs", type=int, default=2, help="training passes of the base")
    parser.add_argument("--seed", type=int, default=0, help="of the base's training")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads to train with")
    parser.add_argument("--teach", type=int, default=100, help="test mistakes to teach live")
    arguments = parser.parse_args()
    name, command, chart = _NAME, "python -m benchmarks.quality.fashion_mnist", _CHART
    if arguments.seed:
        name, command = f"{name}_seed_{arguments.seed}", f"{command} --seed {arguments.seed}"
        chart = OUT / f"{name}.png"
    work = OUT / name
    folder = data_folder(arguments.data)
    images, test = load("train", folder), load("t10k", folder)
    model = train(images, epochs=arguments.epochs, seed=arguments.seed, threads=arguments.threads)
    base = work / "base.onnx"
    export(model, base)
    fit(
        work,
        base,
        {"image": images.images, "y": images.labels},
        store=work / "store",
        name="fashion",
        options=["--classes", ",".join(CLASSES)],
    )
    facts, answers, lessons = _serve(work, test, arguments.teach)
    measurement = measure(
        name,
        command,
        f"small CNN, {arguments.epochs} epochs",
        facts,
        answers,
        test.labels,
    )
    measurement.print()
    lessons.print()
    draw(chart, answers, test, measurement, lessons)
    print(f"\n{measurement.save(teaching=asdict(lessons))}\n{chart}")


def _serve(work: Path, test: Images, count: int) -> tuple[dict[str, object], Answers, Teaching]:
    """All test images, on a server that never learned online; then the lessons, on another."""
    log = work / "server.log"
    for state in ("state", "state-taught"):
        shutil.rmtree(work / state, ignore_errors=True)
    with Server(work / "store", "fashion", work / "state", log) as server:
        facts, answers = server.model(), server.predict(test.images)
    with Server(work / "store", "fashion", work / "state-taught", log) as server:
        lessons = teach(server, test.images, test.labels, answers.resmem, count)
    return facts, answers, lessons


if __name__ == "__main__":
    main()
