from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from resmem_service.errors import BundleError
from resmem_service.fit.onnx_graph import read_graph
from resmem_service.fit.onnx_serving import save_model, serving_graph
from resmem_service.fit.transform import fit_map

from tests.fit.models import Array, digits, digits_head, mlp_nodes, mlp_weights, save

WEIGHTS = mlp_weights()
X = digits()[0][:50]
HIDDEN = np.maximum(X @ WEIGHTS["w1"] + WEIGHTS["b1"], 0)
LOGITS = HIDDEN @ WEIGHTS["w2"] + WEIGHTS["b2"]


def run(model: ModelProto, **rows: Array) -> tuple[Array, Array]:
    onnx.checker.check_model(model)
    session = ort.InferenceSession(model.SerializeToString())
    assert [output.name for output in session.get_outputs()] == ["logits", "embedding"]
    assert {output.type for output in session.get_outputs()} == {"tensor(float)"}
    logits, embedding = session.run(None, rows)
    return np.asarray(logits), np.asarray(embedding)


def softmax(z: Array) -> Array:
    powers = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def test_the_two_outputs_are_the_users_own_numbers(tmp_path: Path) -> None:
    model = serving_graph(read_graph(digits_head(tmp_path / "m.onnx")))
    logits, embedding = run(model, image=X)
    np.testing.assert_allclose(logits, LOGITS, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(embedding, HIDDEN, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["none", "standardise", "whiten"])
@pytest.mark.parametrize("dim", [None, 7])
def test_a_transform_is_folded_in(tmp_path: Path, kind: str, dim: int | None) -> None:
    transform = fit_map(kind, HIDDEN, dim=dim)  # type: ignore[arg-type]
    graph = read_graph(digits_head(tmp_path / "m.onnx"))
    _, embedding = run(serving_graph(graph, transform=transform), image=X)
    np.testing.assert_allclose(embedding, transform.apply(HIDDEN), rtol=1e-4, atol=1e-4)


def test_a_softmax_is_left_out_and_pruned(tmp_path: Path) -> None:
    nodes = [*mlp_nodes("z"), helper.make_node("Softmax", ["z"], ["p"])]
    path = save(tmp_path / "m.onnx", nodes, {"image": ["n", 64]}, ["p"], WEIGHTS)
    model = serving_graph(read_graph(path))
    assert "Softmax" not in {node.op_type for node in model.graph.node}
    np.testing.assert_allclose(run(model, image=X)[0], LOGITS, rtol=1e-5, atol=1e-5)


def test_logits_of_probabilities_give_the_probabilities_back(tmp_path: Path) -> None:
    nodes = [
        *mlp_nodes("z"),
        helper.make_node("Softmax", ["z"], ["p"]),
        helper.make_node("Normalizer", ["p"], ["q"], domain="ai.onnx.ml", norm="L1"),
    ]
    path = save(tmp_path / "m.onnx", nodes, {"image": ["n", 64]}, ["q"], WEIGHTS)
    graph = read_graph(path, embedding="hidden")
    logits, _ = run(serving_graph(graph, probabilities=True), image=X)
    np.testing.assert_allclose(softmax(logits), softmax(LOGITS), atol=2e-6)


@pytest.mark.parametrize("ends_in_sigmoid", [True, False])
@pytest.mark.parametrize("flat", [True, False])
def test_one_score_of_two_classes_becomes_two_logits(
    tmp_path: Path, ends_in_sigmoid: bool, flat: bool
) -> None:
    """Also where the score comes as [n] instead of [n, 1]."""
    weights = {**WEIGHTS, "w2": WEIGHTS["w2"][:, :1], "b2": WEIGHTS["b2"][:1]}
    nodes = mlp_nodes("z")
    last = "z"
    if flat:
        weights["axis"] = np.array([1], np.int64)
        nodes.append(helper.make_node("Squeeze", ["z", "axis"], ["flat"]))
        last = "flat"
    if ends_in_sigmoid:
        nodes.append(helper.make_node("Sigmoid", [last], ["p"]))
        last = "p"
    path = save(tmp_path / "m.onnx", nodes, {"image": ["n", 64]}, [last], weights)
    logits, _ = run(serving_graph(read_graph(path), binary=True), image=X)
    expected = np.stack([np.zeros(len(X)), LOGITS[:, 0]], axis=1)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_one_probability_of_two_classes_becomes_two_logits(tmp_path: Path) -> None:
    weights = {"lo": np.array(0.0, np.float32), "hi": np.array(1.0, np.float32)}
    nodes = [helper.make_node("Clip", ["p", "lo", "hi"], ["out"])]
    path = save(tmp_path / "m.onnx", nodes, {"p": ["n", 1]}, ["out"], weights)
    graph = read_graph(path, embedding="input")
    p = np.array([[0.0], [0.25], [0.5], [1.0]], np.float32)
    logits, _ = run(serving_graph(graph, probabilities=True, binary=True), p=p)
    np.testing.assert_allclose(softmax(logits)[:, 1:], p, atol=1e-6)


def test_the_batch_axis_becomes_free_reshapes_included(tmp_path: Path) -> None:
    weights = {**WEIGHTS, "flat": np.array([1, 64], np.int64)}
    constant = numpy_helper.from_array(np.array([1, -1], np.int64))
    nodes = [
        helper.make_node("Reshape", ["picture", "flat"], ["image"]),
        *mlp_nodes("z"),
        helper.make_node("Constant", [], ["shape"], value=constant),
        helper.make_node("Reshape", ["z", "shape"], ["scores"]),
    ]
    path = save(tmp_path / "m.onnx", nodes, {"picture": [1, 8, 8]}, ["scores"], weights)
    graph = read_graph(path)
    assert graph.inputs[0].shape == (8, 8)
    logits, _ = run(serving_graph(graph), picture=X.reshape(-1, 8, 8))
    np.testing.assert_allclose(logits, LOGITS, rtol=1e-5, atol=1e-5)


def test_several_inputs_are_put_side_by_side_as_floats(tmp_path: Path) -> None:
    weights = {
        "w1": WEIGHTS["w1"],
        "b1": WEIGHTS["b1"],
        "w2": WEIGHTS["w2"],
        "b2": WEIGHTS["b2"],
    }
    nodes = [
        helper.make_node("Cast", ["whole"], ["lower"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["upper", "lower"], ["image"], axis=1),
        *mlp_nodes(),
    ]
    path = save(
        tmp_path / "m.onnx",
        nodes,
        {"upper": ["n", 32], "whole": ["n", 32]},
        ["scores"],
        weights,
        dtypes={"whole": TensorProto.INT64},
    )
    graph = read_graph(path, embedding="input")
    lower = (X[:, 32:] * 16).astype(np.int64)
    _, embedding = run(serving_graph(graph), upper=X[:, :32], whole=lower)
    np.testing.assert_array_equal(embedding, np.concatenate([X[:, :32], lower], axis=1))


def test_several_outputs_and_deep_embeddings_are_flattened(tmp_path: Path) -> None:
    weights = {**WEIGHTS, "deep": np.array([0, 4, 6], np.int64)}
    nodes = [*mlp_nodes("z"), helper.make_node("Reshape", ["hidden", "deep"], ["folded"])]
    path = save(tmp_path / "m.onnx", nodes, {"image": ["n", 64]}, ["z", "folded"], weights)
    graph = read_graph(path, outputs=["z", "folded"], embedding="folded")
    logits, embedding = run(serving_graph(graph), image=X)
    np.testing.assert_allclose(logits, np.concatenate([LOGITS, HIDDEN], axis=1), atol=1e-4)
    np.testing.assert_allclose(embedding, HIDDEN, atol=1e-5)


def test_half_precision_comes_out_as_float32(tmp_path: Path) -> None:
    weights = {name: value.astype(np.float16) for name, value in WEIGHTS.items()}
    kinds = {"image": TensorProto.FLOAT16, "scores": TensorProto.FLOAT16}
    path = save(
        tmp_path / "m.onnx", mlp_nodes(), {"image": ["n", 64]}, ["scores"], weights, dtypes=kinds
    )
    logits, _ = run(serving_graph(read_graph(path)), image=X.astype(np.float16))
    np.testing.assert_allclose(logits, LOGITS, atol=0.05)


def test_tensors_of_the_user_may_be_called_logits_and_embedding(tmp_path: Path) -> None:
    """In branches too."""
    nodes = [
        helper.make_node("Gemm", ["image", "w1", "b1"], ["before"]),
        helper.make_node("Relu", ["before"], ["embedding"]),
        helper.make_node("Gemm", ["embedding", "w2", "b2"], ["z"]),
    ]
    branch = helper.make_graph(
        [helper.make_node("Identity", ["embedding"], ["inner"])],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )
    nodes.append(
        helper.make_node("If", ["yes"], ["branched"], then_branch=branch, else_branch=branch)
    )
    nodes.append(helper.make_node("Gemm", ["branched", "w2", "b2"], ["logits"]))
    weights = {**WEIGHTS, "yes": np.array(True)}
    path = save(tmp_path / "m.onnx", nodes, {"image": ["n", 64]}, ["logits"], weights)
    graph = read_graph(path)
    assert graph.embedding == ("branched",)
    logits, embedding = run(serving_graph(graph), image=X)
    np.testing.assert_allclose(logits, LOGITS, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(embedding, HIDDEN, rtol=1e-5, atol=1e-5)


def test_an_input_may_not_be_called_embedding(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["embedding", "w1"], ["scores"])]
    path = save(tmp_path / "m.onnx", nodes, {"embedding": ["n", 64]}, ["scores"], WEIGHTS)
    with pytest.raises(BundleError, match="an input named 'embedding'"):
        serving_graph(read_graph(path))


def test_weights_listed_as_inputs_are_weights(tmp_path: Path) -> None:
    path = digits_head(tmp_path / "m.onnx")
    model = onnx.load(path)
    model.ir_version = 3
    for name, value in WEIGHTS.items():
        model.graph.input.append(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape)
        )
    onnx.save_model(model, path)
    graph = read_graph(path)
    assert [spec.name for spec in graph.inputs] == ["image"]
    np.testing.assert_allclose(run(serving_graph(graph), image=X)[0], LOGITS, rtol=1e-5, atol=1e-5)


def test_an_old_opset_is_refused_and_a_missing_one_added(tmp_path: Path) -> None:
    path = digits_head(tmp_path / "m.onnx")
    model = onnx.load(path)
    model.opset_import[0].version = 7
    onnx.save_model(model, path)
    with pytest.raises(BundleError, match="opset 7: export it with 8 or newer"):
        serving_graph(read_graph(path))
    nodes = [
        helper.make_node(
            "Scaler", ["image"], ["out"], domain="ai.onnx.ml", scale=[2.0], offset=[0.0]
        )
    ]
    path = save(tmp_path / "b.onnx", nodes, {"image": ["n", 64]}, ["out"], {})
    model = onnx.load(path)
    del model.opset_import[0]
    onnx.save_model(model, path)
    logits, _ = run(serving_graph(read_graph(path, embedding="input")), image=X)
    np.testing.assert_allclose(logits, 2 * X)


def test_external_data_is_taken_in(tmp_path: Path) -> None:
    model = onnx.load(digits_head(tmp_path / "m.onnx"))
    (tmp_path / "external").mkdir()
    path = tmp_path / "external" / "m.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="m.data", size_threshold=0)
    assert (path.parent / "m.data").stat().st_size > 0
    served = tmp_path / "base.onnx"
    save_model(serving_graph(read_graph(path)), served)
    (path.parent / "m.data").unlink()
    session = ort.InferenceSession(served)
    np.testing.assert_allclose(session.run(["logits"], {"image": X})[0], LOGITS, atol=1e-5)
    with pytest.raises(BundleError, match=r"cannot be read|can be read"):
        read_graph(path)


def test_what_protobuf_cannot_hold_goes_beside_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resmem_service.fit.onnx_serving._LARGEST_PROTOBUF", 1000)
    model = serving_graph(read_graph(digits_head(tmp_path / "m.onnx")))
    served = tmp_path / "base.onnx"
    save_model(model, served)
    assert (tmp_path / "base.onnx.data").exists()
    session = ort.InferenceSession(served)
    np.testing.assert_allclose(session.run(["logits"], {"image": X})[0], LOGITS, atol=1e-5)
