"""The model and the bundles of the comparison: scikit-learn's digits, a 64-128-10 perceptron.

Made once, in `benchmarks/out/comparison/`. The memories are mixtures of two digits of one class
with a little noise, so that they fill the space between the 1,797 real ones; real digits are asked
for. `resmem fit` makes the bundles; recall, and ef by it, are measured with the service's memory.
"""

import json
import shutil
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from resmem_service.bundle.store import Bundle, ModelStore
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from benchmarks.quality.fit_command import fit
from benchmarks.speed.digits import digits, save_network

__all__ = ["DigitModels", "ensure_models"]

_FOLDER = Path("benchmarks/out/comparison")
_MEMORIES = 60_000
_SMALL_MEMORY = 100
_DIM = 64
_K = 50
_RECALL = 0.98
_BREADTHS = (50, 64, 80, 100, 128, 200)
_QUERIES = 1000

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class DigitModels:
    """What the servers serve."""

    scores_model: Path
    """Pixels to probabilities, for the others."""
    store: Path
    """The bundles `few` (100 memories, to be forgotten) and `many` (60,000; d = 64, k = 50)."""
    recall: float
    """Share of the true 50 nearest of the 60,000 that are found, at the bundle's `ef`."""
    ef: int
    temperature: float
    """Of the bundles: their base scores are `softmax(logits / temperature)`."""


def ensure_models() -> DigitModels:
    """Makes what is missing, in a minute; raises CalledProcessError if `resmem fit` fails."""
    facts, store = _FOLDER / "models.json", _FOLDER / "store"
    scores_model = (_FOLDER / "scores.onnx").absolute()
    if not facts.is_file():
        shutil.rmtree(_FOLDER, ignore_errors=True)
        _FOLDER.mkdir(parents=True)
        pixels, labels = digits()
        network = MLPClassifier((128,), max_iter=30, random_state=0, early_stopping=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            network.fit(pixels, labels)
        save_network(scores_model, network, probabilities=True)
        save_network(_FOLDER / "base.onnx", network)
        for name, count in (("few", _SMALL_MEMORY), ("fitted", _MEMORIES)):
            rows, targets = _mixtures(count)
            arrays: dict[str, NDArray[Any]] = {"pixels": rows, "y": targets}
            options = ["--embedding-dim", str(_DIM), "--whiten", "no", "--residuals", "float32"]
            fit(_FOLDER, _FOLDER / "base.onnx", arrays, store=store, name=name, options=options)
        facts.write_text(json.dumps(_publish(ModelStore(store))))
    known = json.loads(facts.read_text())
    return DigitModels(scores_model, store, known["recall"], known["ef"], known["temperature"])


def _mixtures(count: int) -> tuple[Floats, NDArray[np.int64]]:
    pixels, labels = digits()
    rng = np.random.default_rng(0)
    first = rng.integers(0, len(pixels), count)
    of_class = [np.flatnonzero(labels == number) for number in range(10)]
    second = np.array([rng.choice(of_class[label]) for label in labels[first]])
    share = rng.random((count, 1))
    rows = share * pixels[first] + (1 - share) * pixels[second]
    return (rows + rng.normal(scale=0.05, size=rows.shape)).astype(np.float32), labels[first]


def _publish(store: ModelStore) -> dict[str, float]:
    """`many`: the fitted bundle with k = 50 and the smallest ef that recalls enough."""
    fitted = store.resolve("fitted")
    ef, recall = _breadth(fitted)
    shutil.rmtree(store.root / "many", ignore_errors=True)
    with store.draft("many") as draft:
        for name in fitted.manifest.files:
            target = draft.path / name
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(fitted.path / name, target)
        parameters = fitted.manifest.parameters.model_copy(update={"k": _K, "ef": ef})
        draft.publish(
            fitted.manifest.model_copy(update={"parameters": parameters, "recall": recall})
        )
    temperature = store.resolve("many").manifest.parameters.temperature
    return {"recall": recall, "ef": ef, "temperature": temperature}


def _breadth(bundle: Bundle) -> tuple[int, float]:
    """In a process of its own: ONNX Runtime's threads would stay with this one."""
    done = subprocess.run(
        [sys.executable, "-m", __spec__.name, str(bundle.path)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    ef, recall = json.loads(done.stdout)
    return ef, recall


def _measure(path: Path) -> tuple[int, float]:
    from resmem_service.inference.base_model import BaseModel
    from resmem_service.inference.rows import Rows
    from resmem_service.memory.memory import ResidualMemory
    from resmem_service.memory.options import MemoryOptions
    from resmem_service.memory.search.soft_knn import SoftKnn
    from resmem_service.memory.segments.graph_file import GraphVectors

    bundle = Bundle.open(path)
    manifest = bundle.manifest
    model = BaseModel(bundle.model_path, inputs=manifest.inputs, provider="cpu")
    queries = model.run(Rows({"pixels": digits()[0][:_QUERIES]})).embeddings
    vectors = GraphVectors(
        bundle.memories_path / "graph.hnsw", manifest.embedding.dim, manifest.memories
    )
    rows = vectors.take(np.arange(len(vectors)))
    squares = (rows**2).sum(axis=1) - 2 * queries @ rows.T
    nearest = np.argpartition(squares, _K, axis=1)[:, :_K]
    state = _FOLDER / "recall"
    memory = ResidualMemory.open(
        state,
        fitted=bundle.memories_path,
        shape=manifest.memory_shape(),
        options=MemoryOptions(maintain=False),
    )
    recall = 0.0
    for ef in _BREADTHS:
        rule = SoftKnn(k=_K, sigma=manifest.parameters.sigma, alpha=0.0, ef=ef)
        found = -1 - memory.correct(queries, rule).sequences
        hits = [len(np.intersect1d(one, two)) for one, two in zip(found, nearest, strict=True)]
        recall = float(np.mean(hits)) / _K
        if recall >= _RECALL:
            break
    memory.close()
    shutil.rmtree(state)
    return ef, recall


if __name__ == "__main__":
    print(json.dumps(_measure(Path(sys.argv[1]))))
