from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from resmem_service.errors import BundleError
from resmem_service.fit.base_pass import BasePass, Represented
from resmem_service.fit.dataset import LabelledRows
from resmem_service.fit.onnx_graph import read_graph
from resmem_service.fit.scratch import Scratch
from resmem_service.fit.tuning import Outputs
from resmem_service.inference.residuals import Task, base_prediction
from resmem_service.inference.rows import Rows
from resmem_service.progress import Silent

from tests.fit.models import Array, digits, digits_head, mlp_nodes, mlp_weights, save

X, Y = digits()
X, Y = X[:300], Y[:300]
WEIGHTS = mlp_weights()
HIDDEN = np.maximum(X @ WEIGHTS["w1"] + WEIGHTS["b1"], 0)
LOGITS = HIDDEN @ WEIGHTS["w2"] + WEIGHTS["b2"]


def labelled(targets: Array = Y, **arrays: Array) -> LabelledRows:
    return LabelledRows(Rows(arrays or {"image": X}), targets, "train.npz")


def settle(
    path: Path,
    rows: LabelledRows | None = None,
    *,
    task: Task | None = None,
    embedding: str | None = None,
    classes: list[str] | None = None,
) -> BasePass:
    return BasePass.settle(
        read_graph(path, embedding=embedding),
        rows or labelled(),
        path.parent,
        task=task,
        classes=classes,
        provider="cpu",
        threads=None,
        batch_rows=128,
    )


def test_logits_and_embeddings_come_in_batches_as_they_are(tmp_path: Path) -> None:
    base_pass = settle(digits_head(tmp_path / "m.onnx"))
    assert (base_pass.task, base_pass.width, base_pass.probabilities, base_pass.binary) == (
        "classification",
        10,
        False,
        False,
    )
    seen = base_pass.represent(labelled(), Scratch(tmp_path), Silent())
    np.testing.assert_allclose(seen.outputs.logits, LOGITS, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(seen.embeddings, HIDDEN, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(seen.outputs.targets, Y)


def test_scores_that_are_distributions_are_taken_for_probabilities(tmp_path: Path) -> None:
    """As scikit-learn's converters leave them: no Softmax to be seen at the end."""
    nodes = [
        *mlp_nodes("z"),
        helper.make_node("Softmax", ["z"], ["p"]),
        helper.make_node("Normalizer", ["p"], ["q"], domain="ai.onnx.ml", norm="L1"),
    ]
    path = save(tmp_path / "m.onnx", nodes, {"image": ["n", 64]}, ["q"], WEIGHTS)
    base_pass = settle(path, embedding="hidden")
    assert base_pass.probabilities
    logits = base_pass.represent(labelled(), Scratch(tmp_path), Silent()).outputs.logits
    base = base_prediction(logits, "classification", 1.0)
    expected = base_prediction(LOGITS, "classification", 1.0)
    np.testing.assert_allclose(base, expected, atol=1e-5)


def test_trees_that_give_only_probabilities(tmp_path: Path) -> None:
    """A stump: pixel 36 dark -> 80 % a zero, else 10 %."""
    tree = helper.make_node(
        "TreeEnsembleClassifier",
        ["image"],
        ["label", "p"],
        domain="ai.onnx.ml",
        nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2],
        nodes_featureids=[36, 0, 0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_values=[0.1, 0.0, 0.0],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0],
        nodes_missing_value_tracks_true=[0, 0, 0],
        nodes_hitrates=[1.0, 1.0, 1.0],
        class_treeids=[0, 0, 0, 0],
        class_nodeids=[1, 1, 2, 2],
        class_ids=[0, 1, 0, 1],
        class_weights=[0.8, 0.2, 0.1, 0.9],
        classlabels_strings=["nought", "other"],
        post_transform="NONE",
    )
    zipmap = helper.make_node(
        "ZipMap",
        ["p"],
        ["maps"],
        domain="ai.onnx.ml",
        classlabels_strings=["nought", "other"],
    )
    path = save(
        tmp_path / "m.onnx",
        [tree, zipmap],
        {"image": ["n", 64]},
        ["label", "maps"],
        {},
        dtypes={"label": TensorProto.STRING},
    )
    names = np.where(Y == 0, "nought", "other")
    base_pass = settle(path, labelled(names), embedding="input")
    assert base_pass.labels is not None
    assert base_pass.labels.names == ("nought", "other")
    seen = base_pass.represent(labelled(names), Scratch(tmp_path), Silent())
    base = base_prediction(seen.outputs.logits, "classification", 1.0)
    np.testing.assert_allclose(base[:, 0], np.where(X[:, 36] <= 0.1, 0.8, 0.1), atol=1e-6)
    np.testing.assert_array_equal(seen.outputs.targets, Y != 0)
    np.testing.assert_array_equal(seen.embeddings, X)


def one_score(path: Path, last: str | None) -> Path:
    weights = {**WEIGHTS, "w2": WEIGHTS["w2"][:, :1], "b2": WEIGHTS["b2"][:1]}
    nodes = mlp_nodes("z")
    if last is not None:
        nodes.append(helper.make_node(last, ["z"], ["p"]))
    return save(path, nodes, {"image": ["n", 64]}, ["z" if last is None else "p"], weights)


@pytest.mark.parametrize("last", ["Sigmoid", None])
def test_one_score_of_two_classes(tmp_path: Path, last: str | None) -> None:
    rows = labelled((Y == 0).astype(np.int64))
    base_pass = settle(one_score(tmp_path / "m.onnx", last), rows)
    assert (base_pass.width, base_pass.binary) == (2, True)
    seen = base_pass.represent(rows, Scratch(tmp_path), Silent())
    base = base_prediction(seen.outputs.logits, "classification", 1.0)
    np.testing.assert_allclose(base[:, 1], 1 / (1 + np.exp(-LOGITS[:, 0])), atol=1e-5)


def test_a_regression_that_ends_in_a_sigmoid_answers_after_it(tmp_path: Path) -> None:
    rows = labelled((Y / 10).astype(np.float32))
    base_pass = settle(one_score(tmp_path / "m.onnx", "Sigmoid"), rows, task="regression")
    assert (base_pass.width, base_pass.labels) == (1, None)
    seen = base_pass.represent(rows, Scratch(tmp_path), Silent())
    expected = 1 / (1 + np.exp(-LOGITS[:, :1]))
    np.testing.assert_allclose(seen.outputs.logits, expected, atol=1e-5)
    assert seen.outputs.targets.shape == (300, 1)


def test_a_baked_in_batch_is_refused_with_advice(tmp_path: Path) -> None:
    weights = {**WEIGHTS, "lesser": np.zeros((1, 10), np.float32), "four": np.array([4, 10])}
    nodes = [*mlp_nodes("z"), helper.make_node("Expand", ["lesser", "four"], ["zero"])]
    nodes.append(helper.make_node("Add", ["z", "zero"], ["scores"]))
    path = save(tmp_path / "m.onnx", nodes, {"image": [4, 64]}, ["scores"], weights)
    with pytest.raises(BundleError, match=r"does not run on the first rows.*dynamic batch axis"):
        settle(path, embedding="hidden")


def test_answers_that_depend_on_the_batch_are_refused(tmp_path: Path) -> None:
    """As with batch normalisation left in training mode."""
    nodes = [
        *mlp_nodes("z"),
        helper.make_node("ReduceMean", ["z"], ["mean"], axes=[0]),
        helper.make_node("Sub", ["z", "mean"], ["scores"]),
    ]
    path = save(tmp_path / "m.onnx", nodes, {"image": ["n", 64]}, ["scores"], WEIGHTS)
    with pytest.raises(BundleError, match=r"row 0 differently in a batch.*evaluation mode"):
        settle(path, embedding="hidden")


def test_nan_from_the_base_names_its_row(tmp_path: Path) -> None:
    nodes = [*mlp_nodes("z"), helper.make_node("Log", ["z"], ["scores"])]
    path = save(tmp_path / "m.onnx", nodes, {"image": ["n", 64]}, ["scores"], WEIGHTS)
    base_pass = settle(path, embedding="hidden")
    first = int((LOGITS <= 0).any(axis=1).argmax())
    with pytest.raises(BundleError, match=rf"answers row {first} with NaN or infinity \(logits\)"):
        base_pass.represent(labelled(), Scratch(tmp_path), Silent())


def test_labels_and_outputs_must_fit(tmp_path: Path) -> None:
    path = digits_head(tmp_path / "m.onnx")
    with pytest.raises(BundleError, match="2 classes, but the model has 10 outputs"):
        settle(path, classes=["a", "b"])
    with pytest.raises(BundleError, match="is not a class: use --task regression"):
        settle(path, labelled(Y / 7))
    with pytest.raises(BundleError, match="1 numbers per target, the model gives 10"):
        settle(path, task="regression").targets(labelled(Y / 7))


def test_rows_are_kept_in_the_order_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resmem_service.fit.batches.CELLS", 20)
    rows = np.array([7, 2, 2, 299, 0])
    kept = Represented(Outputs(LOGITS, Y), HIDDEN).kept(rows, Scratch(tmp_path))
    assert len(kept) == 5
    np.testing.assert_array_equal(kept.outputs.logits, LOGITS[rows])
    np.testing.assert_array_equal(kept.outputs.targets, Y[rows])
    np.testing.assert_array_equal(kept.part(np.array([4])).embeddings, HIDDEN[:1])
