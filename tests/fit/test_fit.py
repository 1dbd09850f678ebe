import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import helper
from resmem_service.bundle.store import Bundle, ModelStore
from resmem_service.errors import BundleError
from resmem_service.fit.fit import FitSettings, fit
from resmem_service.fit.neighbours import nearest
from resmem_service.fit.tuning import Grid, Outputs, Setting
from resmem_service.inference.base_model import BaseModel
from resmem_service.inference.residuals import base_prediction
from resmem_service.inference.rows import Rows
from resmem_service.memory.memory import ResidualMemory
from resmem_service.progress import Silent

from tests.fit.models import Array, diabetes, digits, digits_head, ridge
from tests.fit.models import save as save_model
from tests.fit.reference import score_of
from tests.fit.wide import triple_network, triples

X, Y = digits()
NAMES = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])


class Listener(Silent):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def settings(tmp_path: Path) -> FitSettings:
    """The digits' network and its 900 training rows."""
    digits_head(tmp_path / "base.onnx")
    np.savez(tmp_path / "train.npz", x=X[:900], y=Y[:900])
    np.savez(tmp_path / "unseen.npz", x=X[900:1300], y=Y[900:1300])
    np.savez(tmp_path / "test.npz", x=X[1300:], y=Y[1300:])
    return FitSettings(
        model=tmp_path / "base.onnx",
        data=str(tmp_path / "train.npz"),
        store=tmp_path / "store",
        name="digits",
    )


def served(bundle: Bundle, rows: Rows) -> tuple[Array, Array, Array]:
    """Base, scores and sequences of the neighbours, from the bundle alone."""
    manifest = bundle.manifest
    model = BaseModel(bundle.model_path, inputs=manifest.inputs, provider="cpu")
    output = model.run(rows)
    shape = manifest.memory_shape()
    memory = ResidualMemory.open(None, fitted=bundle.memories_path, shape=shape)
    found = memory.correct(output.embeddings, manifest.parameters.rule())
    memory.close()
    base = base_prediction(output.logits, manifest.task, manifest.parameters.temperature)
    return base, base + found.residuals, found.sequences


def accuracy(scores: Array) -> float:
    return float((scores.argmax(axis=1) == Y[1300:]).mean())


def test_memories_make_the_base_better(settings: FitSettings, tmp_path: Path) -> None:
    settings = replace(settings, test=str(tmp_path / "test.npz"))
    bundle = fit(settings, Silent())
    bundle.check()
    bundle.verify()
    manifest = bundle.manifest
    assert ModelStore(settings.store).resolve("digits/1").manifest == manifest
    assert (manifest.task, manifest.memories, manifest.outputs) == ("classification", 900, 10)
    assert manifest.classes == list("0123456789")
    assert manifest.embedding.tensor == "hidden"
    assert manifest.recall >= 0.98
    held, test = manifest.scores
    assert (held.held_out, held.rows, test.held_out, test.rows) == (
        "leave-one-out",
        450,
        "test",
        497,
    )
    base, scores, _ = served(bundle, Rows({"image": X[1300:]}))
    assert accuracy(base) == pytest.approx(test.base.value)
    assert accuracy(scores) == pytest.approx(test.resmem.value)
    assert test.resmem.value > test.base.value + 0.02
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-4)


def test_unseen_rows_choose_and_then_become_memories(settings: FitSettings, tmp_path: Path) -> None:
    bundle = fit(replace(settings, unseen=str(tmp_path / "unseen.npz")), Silent())
    table = bundle.manifest.scores[0]
    assert (table.held_out, table.rows) == ("unseen", 200)
    assert bundle.manifest.memories == 1300
    _, _, sequences = served(bundle, Rows({"image": X[:1300]}))
    first = -1 - sequences[:, 0]
    assert (first == np.arange(1300)).mean() > 0.99


def test_the_same_seed_fits_the_same_bundle(settings: FitSettings) -> None:
    one, two = fit(settings, Silent()), fit(settings, Silent())
    assert (one.manifest.version, two.manifest.version) == ("1", "2")
    for field in ("parameters", "teaching_weight", "scores"):
        assert getattr(one.manifest, field) == getattr(two.manifest, field)
    for name in ("base.onnx", "memories/residuals.npy"):
        assert one.manifest.files[name] == two.manifest.files[name]


def test_memories_can_be_limited(settings: FitSettings, tmp_path: Path) -> None:
    bundle = fit(replace(settings, max_memories=300), Silent())
    assert bundle.manifest.memories == 300
    targets = np.load(bundle.memories_path / "targets.npy")
    np.testing.assert_allclose(np.bincount(targets), np.bincount(Y[:900]) / 3, atol=1.5)
    unseen = replace(settings, unseen=str(tmp_path / "unseen.npz"))
    assert fit(replace(unseen, max_memories=700), Silent()).manifest.memories == 700
    with pytest.raises(BundleError, match=r"--max-memories 400 leaves no room .* the 400 unseen"):
        fit(replace(unseen, max_memories=400), Silent())


@pytest.mark.parametrize(
    ("changes", "transform", "dim"),
    [
        ({"whiten": "no"}, "none", 24),
        ({"whiten": "yes", "embedding_dim": 8}, "whiten", 8),
        ({"whiten": "no", "embedding": "input"}, "standardise", 64),
        ({"whiten": "no", "embedding": "before", "embedding_dim": 5}, "none", 5),
    ],
)
def test_options_settle_the_embedding(
    settings: FitSettings, changes: dict[str, Any], transform: str, dim: int
) -> None:
    bundle = fit(replace(settings, **changes), Silent())
    assert bundle.manifest.embedding.transform == transform
    assert bundle.manifest.embedding.dim == dim
    session = ort.InferenceSession(bundle.model_path)
    assert session.run(["embedding"], {"image": X[:3]})[0].shape == (3, dim)


def test_string_labels_and_class_names(settings: FitSettings, tmp_path: Path) -> None:
    table = pa.table({"image": X[:900].tolist(), "digit": NAMES[Y[:900]].tolist()})
    pq.write_table(table, tmp_path / "train.parquet")
    settings = replace(settings, data=str(tmp_path / "train.parquet"), target="digit")
    bundle = fit(replace(settings, classes=NAMES.tolist()), Silent())
    assert bundle.manifest.classes == NAMES.tolist()
    assert bundle.manifest.scores[0].base.value > 0.85


def test_classes_in_another_order_than_the_outputs_are_suspected(
    settings: FitSettings, tmp_path: Path
) -> None:
    np.savez(tmp_path / "train.npz", x=X[:900], y=(Y[:900] + 1) % 10)
    listener = Listener()
    fit(settings, listener)
    assert any("warning: the base is worse than always" in line for line in listener.lines)


def test_a_linear_regression_by_its_inputs(tmp_path: Path) -> None:
    x, y = diabetes()
    ridge(tmp_path / "m.onnx")
    np.savez(tmp_path / "train.npz", features=x[:221], y=y[:221])
    np.savez(tmp_path / "unseen.npz", features=x[221:], y=y[221:])
    settings = FitSettings(
        model=tmp_path / "m.onnx",
        data=str(tmp_path / "train.npz"),
        unseen=str(tmp_path / "unseen.npz"),
        store=tmp_path / "store",
        name="diabetes",
    )
    manifest = fit(settings, Silent()).manifest
    assert (manifest.task, manifest.classes, manifest.outputs) == ("regression", None, 1)
    assert (manifest.embedding.tensor, manifest.embedding.dim) == ("input", 10)
    table = manifest.scores[0]
    assert table.metric == "rmse"
    assert table.resmem.value < table.knn.value
    assert table.resmem.low <= table.resmem.value <= table.resmem.high


def test_two_inputs_and_two_outputs(tmp_path: Path) -> None:
    """Two inputs into one network, two of its outputs as a regression of two numbers."""
    x, y = diabetes()
    random = np.random.default_rng(0)
    targets = np.stack([y, 100 * x[:, 0]], axis=1).astype(np.float32)
    hidden = random.normal(size=(10, 32)).astype(np.float32) * 5
    features = np.maximum(x @ hidden, 0)
    solved = np.linalg.lstsq(features[:221], targets[:221], rcond=None)[0].astype(np.float32)
    nodes = [
        helper.make_node("Concat", ["left", "right"], ["both"], axis=1),
        helper.make_node("MatMul", ["both", "w1"], ["before"]),
        helper.make_node("Relu", ["before"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "wa"], ["a"]),
        helper.make_node("MatMul", ["hidden", "wb"], ["b"]),
    ]
    weights = {"w1": hidden, "wa": solved[:, :1], "wb": solved[:, 1:]}
    inputs: dict[str, list[int | str | None]] = {"left": ["n", 4], "right": ["n", 6]}
    save_model(tmp_path / "m.onnx", nodes, inputs, ["a", "b"], weights)
    np.savez(tmp_path / "train.npz", left=x[:, :4], right=x[:, 4:], y=targets)
    settings = FitSettings(
        model=tmp_path / "m.onnx",
        data=str(tmp_path / "train.npz"),
        store=tmp_path / "store",
        name="two",
        outputs=("a", "b"),
    )
    bundle = fit(settings, Silent())
    assert [spec.name for spec in bundle.manifest.inputs] == ["left", "right"]
    assert bundle.manifest.outputs == 2
    assert bundle.manifest.embedding.tensor == "hidden"
    rows = Rows({"left": x[:5, :4], "right": x[:5, 4:]})
    base, _, _ = served(bundle, rows)
    np.testing.assert_allclose(base, features[:5] @ solved, rtol=1e-3, atol=1e-2)
    stored = np.load(bundle.memories_path / "residuals.npy")
    np.testing.assert_allclose(stored[:5], targets[:5] - base, rtol=1e-3, atol=1e-2)


def test_the_recommended_weight_turns_wrong_answers_right(
    settings: FitSettings, tmp_path: Path
) -> None:
    """Through the real memory: each row that ResMem gets wrong is taught once, to a copy."""
    settings = replace(settings, unseen=str(tmp_path / "unseen.npz"))
    bundle = fit(settings, Silent())
    manifest, rule = bundle.manifest, bundle.manifest.parameters.rule()
    base, scores, _ = served(bundle, Rows({"image": X[1300:]}))
    wrong = np.flatnonzero(scores.argmax(axis=1) != Y[1300:])
    assert len(wrong) > 0
    model = BaseModel(bundle.model_path, inputs=manifest.inputs, provider="cpu")
    embeddings = model.run(Rows({"image": X[1300:]})).embeddings
    shape = manifest.memory_shape()
    memory = ResidualMemory.open(None, fitted=bundle.memories_path, shape=shape)
    residuals = np.load(bundle.memories_path / "residuals.npy")
    right = 0
    for row in wrong:
        found = memory.correct(embeddings[row : row + 1], rule)
        near = -1 - found.sequences[0][: rule.k - 1]
        masses = np.exp(-found.distances[0][: rule.k - 1] / rule.sigma)
        own = np.eye(10)[Y[1300 + row]] - base[row]
        total = rule.alpha + masses.sum() + manifest.teaching_weight
        correction = (manifest.teaching_weight * own + masses @ residuals[near]) / total
        right += int((base[row] + correction).argmax() == Y[1300 + row])
    memory.close()
    assert right >= 0.95 * len(wrong)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"model": Path("missing.onnx")}, r"there is no model missing\.onnx"),
        ({"data": "missing.npz"}, "there is no file missing"),
        ({"unseen": "missing.npz"}, "there is no file missing"),
        ({"test": "missing.npz"}, "there is no file missing"),
        ({"name": "no/name"}, "not a model name"),
        ({"embedding": "nothing"}, "no tensor 'nothing'"),
        ({"embedding_dim": 25}, "--embedding-dim 25: the embedding has 24 axes"),
        ({"outputs": ("x",)}, "no output 'x'"),
        ({"classes": ["a", "b"]}, "2 classes"),
        ({"task": "regression"}, "1 numbers per target"),
        ({"target": "z"}, "has no 'z'"),
        ({"max_memories": 1}, "leaves no room"),
        ({"residuals": "top-11"}, "the model has 10 classes only"),
        ({"residuals": "int8"}, "not a residual codec"),
    ],
)
def test_what_cannot_be_fitted_publishes_nothing(
    settings: FitSettings, changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(BundleError, match=complaint):
        fit(replace(settings, **changes), Silent())
    assert ModelStore(settings.store).names() == []
    left = list(settings.store.rglob("*")) if settings.store.exists() else []
    assert not any(path.name.startswith(".building") for path in left)


def test_wide_outputs_are_stored_as_the_likeliest_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand classes; the bundle answers as one whose residuals are whole."""
    grid = Grid(ks=(1, 5, 20), sigmas=(0.25, 1.0), temperatures=(1.0,), alphas=(0.0,))
    monkeypatch.setattr("resmem_service.fit.choice.Grid", lambda: grid)
    train, test = triples(300, 0), triples(200, 1, unseen=True)
    for name, (x, y) in (("train", train), ("test", test)):
        np.savez(tmp_path / f"{name}.npz", image=x, y=y)
    settings = FitSettings(
        model=triple_network(tmp_path / "m.onnx"),
        data=str(tmp_path / "train.npz"),
        test=str(tmp_path / "test.npz"),
        store=tmp_path / "store",
        name="triples",
        whiten="no",
        classes=[f"{number:03}" for number in range(1000)],
    )
    small, whole = fit(settings, Silent()), fit(replace(settings, residuals="float32"), Silent())
    manifest = small.manifest
    assert re.fullmatch(r"top-\d+", manifest.residuals)
    assert manifest.residuals_reason.startswith("of 1,000 classes")
    assert whole.manifest.residuals_reason.startswith(
        f"asked for with --residuals; auto would take {manifest.residuals}: of 1,000"
    )
    assert whole.manifest.codecs == manifest.codecs
    trial = next(trial for trial in manifest.codecs if trial.name == manifest.residuals)
    size = small.manifest.files["memories/residuals.npy"].bytes
    assert size == pytest.approx(300 * trial.residual_bytes, abs=200)
    assert size < whole.manifest.files["memories/residuals.npy"].bytes / 5
    small.verify()
    rows = Rows({"image": test[0]})
    (base, scores, _), (_, exact, _) = served(small, rows), served(whole, rows)
    assert np.abs(scores - exact).max() < 0.03
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=0.01)
    wrong, right = (scores.argmax(axis=1) != test[1]), (exact.argmax(axis=1) == test[1])
    assert (wrong & right).sum() <= 2
    assert (scores.argmax(axis=1) == test[1]).mean() == manifest.scores[-1].resmem.value
    assert (base.argmax(axis=1) == test[1]).mean() == manifest.scores[-1].base.value


@pytest.mark.parametrize("name", ["float32", "float16", "top-5"])
def test_the_correction_is_the_formulas_within_what_was_measured(
    settings: FitSettings, name: str
) -> None:
    bundle = fit(replace(settings, whiten="no", residuals=name), Silent())
    manifest = bundle.manifest
    assert manifest.residuals == name
    chosen = manifest.parameters
    setting = Setting(chosen.k, chosen.sigma, chosen.temperature, chosen.alpha)
    model = BaseModel(bundle.model_path, inputs=manifest.inputs, provider="cpu")
    known, asked = (model.run(Rows({"image": x})) for x in (X[:900], X[1300:1350]))
    memories = Outputs(known.logits, Y[:900].astype(np.int32))
    near = nearest(asked.embeddings, known.embeddings, chosen.k)
    _, scores, sequences = served(bundle, Rows({"image": X[1300:1350]}))
    trial = next(trial for trial in manifest.codecs if trial.name == name)
    # Rows that the trial did not see may differ by a little more.
    bound = 1e-5 + 2 * trial.largest_change
    queries = Outputs(asked.logits, Y[1300:1350].astype(np.int32))
    for row in range(50):
        if set(-1 - sequences[row]) == set(near.rows[row].tolist()):
            found = (
                near.rows[row],
                near.distances[row] - near.distances[row, 0] * (setting.alpha == 0),
            )
            expected = score_of(queries, row, memories, *found, setting)
            np.testing.assert_allclose(scores[row], expected, atol=bound)


def test_nothing_but_the_bundle_stays(settings: FitSettings) -> None:
    bundle = fit(replace(settings, max_memories=300), Silent())
    files = {path.relative_to(bundle.path).as_posix() for path in bundle.path.rglob("*.*")}
    assert files == {*bundle.manifest.files, "manifest.json", "manifest.json.sha256"}


def test_a_poor_graph_is_warned_of(settings: FitSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resmem_service.fit.fit.ENOUGH", 1.1)
    listener = Listener()
    fit(settings, listener)
    assert any("of the true neighbours at ef" in line for line in listener.lines)
