from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from resmem_service.errors import BundleError
from resmem_service.fit.onnx_graph import read_graph
from resmem_service.inference.tensor_spec import TensorSpec

from tests.fit.models import digits_head, mlp_nodes, mlp_weights, ridge, save

WEIGHTS = mlp_weights()


def test_the_input_of_the_last_gemm_is_the_embedding(tmp_path: Path) -> None:
    graph = read_graph(digits_head(tmp_path / "m.onnx"))
    assert graph.inputs == (TensorSpec("image", "float32", (64,)),)
    assert graph.embedding == ("hidden",)
    assert graph.heads[0].tensor == "scores"
    assert graph.heads[0].activation is None


@pytest.mark.parametrize("activation", ["Softmax", "Sigmoid"])
def test_an_activation_is_taken_off(tmp_path: Path, activation: str) -> None:
    nodes = [*mlp_nodes("z"), helper.make_node(activation, ["z"], ["p"])]
    path = save(tmp_path / "m.onnx", nodes, {"image": ["n", 64]}, ["p"], WEIGHTS)
    head = read_graph(path).heads[0]
    assert (head.tensor, head.activation, head.answered) == ("z", activation, "p")


def test_the_tail_of_bias_reshape_cast_and_identity_is_walked(tmp_path: Path) -> None:
    shape = np.array([0, 10], np.int64)
    weights = {**WEIGHTS, "shape": shape, "two": np.array(2.0, np.float32)}
    nodes = [
        helper.make_node("Gemm", ["image", "w1", "b1"], ["before"]),
        helper.make_node("Relu", ["before"], ["hidden"]),
        helper.make_node("Transpose", ["w2"], ["turned"], perm=[1, 0]),
        helper.make_node("Transpose", ["turned"], ["w"], perm=[1, 0]),
        helper.make_node("MatMul", ["hidden", "w"], ["product"]),
        helper.make_node("Add", ["b2", "product"], ["sum"]),
        helper.make_node("Div", ["sum", "two"], ["cooled"]),
        helper.make_node("Reshape", ["cooled", "shape"], ["shaped"]),
        helper.make_node("Cast", ["shaped"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Identity", ["cast"], ["scores"]),
    ]
    path = save(tmp_path / "m.onnx", nodes, {"image": ["n", 64]}, ["scores"], weights)
    graph = read_graph(path)
    assert graph.embedding == ("hidden",)
    assert graph.heads[0].tensor == "scores"


def test_a_flatten_whose_shape_is_computed_is_walked(tmp_path: Path) -> None:
    weights = {
        **WEIGHTS,
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "rest": np.array([-1], np.int64),
    }
    nodes = [
        *mlp_nodes("z"),
        helper.make_node("Shape", ["z"], ["whole"]),
        helper.make_node("Slice", ["whole", "zero", "one"], ["batch"]),
        helper.make_node("Concat", ["batch", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["z", "shape"], ["scores"]),
    ]
    path = save(tmp_path / "m.onnx", nodes, {"image": ["n", 64]}, ["scores"], weights)
    assert read_graph(path).embedding == ("hidden",)


def test_quantised_weights_are_constants_and_a_quantised_embedding_is_read_as_floats(
    tmp_path: Path,
) -> None:
    scale, zero = np.array(0.02, np.float32), np.array(128, np.uint8)
    weights = {
        "w1": WEIGHTS["w1"],
        "w2q": np.clip(np.round(WEIGHTS["w2"] / 0.02) + 128, 0, 255).astype(np.uint8),
        "scale": scale,
        "zero": zero,
    }
    nodes = [
        helper.make_node("MatMul", ["image", "w1"], ["hidden"]),
        helper.make_node("DynamicQuantizeLinear", ["hidden"], ["q", "qs", "qz"]),
        helper.make_node("MatMulInteger", ["q", "w2q", "qz", "zero"], ["whole"]),
        helper.make_node("Cast", ["whole"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["scores"]),
    ]
    path = save(tmp_path / "m.onnx", nodes, {"image": ["n", 64]}, ["scores"], weights)
    assert read_graph(path).embedding == ("hidden",)
    nodes = [
        helper.make_node("MatMul", ["image", "w1"], ["hidden"]),
        helper.make_node("DequantizeLinear", ["w2q", "scale", "zero"], ["w2"]),
        helper.make_node("MatMul", ["hidden", "w2"], ["scores"]),
    ]
    path = save(tmp_path / "m.onnx", nodes, {"image": ["n", 64]}, ["scores"], weights)
    assert read_graph(path).embedding == ("hidden",)


def test_a_linear_model_has_its_inputs_for_an_embedding(tmp_path: Path) -> None:
    graph = read_graph(ridge(tmp_path / "m.onnx"))
    assert graph.of_inputs
    assert graph.embedding == ("features",)
    assert graph.embedding_name == "input"


def test_options_name_the_embedding(tmp_path: Path) -> None:
    path = digits_head(tmp_path / "m.onnx")
    assert read_graph(path, embedding="before").embedding == ("before",)
    assert read_graph(path, embedding="image").embedding == ("image",)
    assert read_graph(path, embedding="input").of_inputs
    with pytest.raises(BundleError, match=r"no tensor 'hiden'.*near to it: hidden"):
        read_graph(path, embedding="hiden")
    with pytest.raises(BundleError, match="no tensor 'w1' that depends"):
        read_graph(path, embedding="w1")


def test_a_model_without_a_last_layer_asks_for_an_embedding(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gemm", ["image", "w1", "b1"], ["hidden"]),
        helper.make_node("Tanh", ["hidden"], ["scores"]),
    ]
    path = save(tmp_path / "m.onnx", nodes, {"image": ["n", 64]}, ["scores"], WEIGHTS)
    with pytest.raises(BundleError, match=r"--embedding TENSOR .*scores, hidden.*--embedding inp"):
        read_graph(path)


def test_one_of_several_outputs_is_chosen_by_option_or_by_its_usual_name(tmp_path: Path) -> None:
    nodes = [*mlp_nodes("z"), helper.make_node("Identity", ["z"], ["copy"])]
    path = save(tmp_path / "a.onnx", nodes, {"image": ["n", 64]}, ["copy", "hidden"], WEIGHTS)
    with pytest.raises(BundleError, match=r"--output .*the model has: copy, hidden") as caught:
        read_graph(path)
    assert caught.value.field == "output"
    assert read_graph(path, outputs=["copy"]).heads[0].tensor == "copy"
    assert [h.tensor for h in read_graph(path, outputs=["copy", "hidden"]).heads] == [
        "copy",
        "hidden",
    ]
    with pytest.raises(BundleError, match="no output 'z'; it has: copy, hidden"):
        read_graph(path, outputs=["z"])
    nodes = mlp_nodes("logits")
    path = save(tmp_path / "b.onnx", nodes, {"image": ["n", 64]}, ["hidden", "logits"], WEIGHTS)
    assert read_graph(path).heads[0].tensor == "logits"


def test_labels_are_no_prediction_and_class_names_are_read(tmp_path: Path) -> None:
    nodes = [
        helper.make_node(
            "LinearClassifier",
            ["image"],
            ["label", "raw"],
            domain="ai.onnx.ml",
            coefficients=WEIGHTS["w1"].T[:3].ravel().tolist(),
            intercepts=[0.0, 0.0, 0.0],
            classlabels_strings=["ant", "bee", "cat"],
            post_transform="SOFTMAX",
        ),
        helper.make_node("Normalizer", ["raw"], ["p"], domain="ai.onnx.ml", norm="L1"),
    ]
    kinds = {"label": TensorProto.STRING}
    path = save(tmp_path / "m.onnx", nodes, {"image": ["n", 64]}, ["label", "p"], {}, dtypes=kinds)
    graph = read_graph(path, embedding="input")
    assert graph.heads[0].tensor == "p"
    assert graph.classes == ("ant", "bee", "cat")


def test_a_zipmap_is_skipped(tmp_path: Path) -> None:
    nodes = [
        *mlp_nodes("z"),
        helper.make_node("Softmax", ["z"], ["p"]),
        helper.make_node(
            "ZipMap", ["p"], ["maps"], domain="ai.onnx.ml", classlabels_int64s=list(range(10))
        ),
    ]
    path = save(tmp_path / "m.onnx", nodes, {"image": ["n", 64]}, ["maps"], WEIGHTS)
    graph = read_graph(path)
    assert graph.heads[0].tensor == "z"
    assert graph.classes == tuple("0123456789")


@pytest.mark.parametrize(
    ("kind", "shape", "complaint"),
    [
        (TensorProto.STRING, ["n", 64], "input 'image' has the unsupported dtype"),
        (TensorProto.FLOAT, [], "declares no batch axis"),
        (TensorProto.FLOAT, ["n", 0], "axis below 1"),
    ],
)
def test_inputs_that_cannot_be_served_are_refused(
    tmp_path: Path, kind: int, shape: list[int | str | None], complaint: str
) -> None:
    nodes = [helper.make_node("Identity", ["image"], ["scores"])]
    path = save(
        tmp_path / "m.onnx", nodes, {"image": shape}, ["scores"], {}, dtypes={"image": kind}
    )
    with pytest.raises(BundleError, match=complaint):
        read_graph(path)


def test_a_sequence_input_is_refused(tmp_path: Path) -> None:
    path = digits_head(tmp_path / "m.onnx")
    model = onnx.load(path)
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    model.graph.input[0].type.CopyFrom(kind)
    onnx.save_model(model, path)
    with pytest.raises(BundleError, match="input 'image' is not a tensor"):
        read_graph(path)


def test_what_is_no_model_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there is no model"):
        read_graph(tmp_path / "missing.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"no protobuf at all")
    with pytest.raises(BundleError, match=r"bad\.onnx is not an ONNX model"):
        read_graph(tmp_path / "bad.onnx")
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match="no nodes"):
        read_graph(tmp_path / "empty.onnx")


def test_a_model_without_inputs_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["b1"], ["scores"])]
    path = save(tmp_path / "m.onnx", nodes, {}, ["scores"], WEIGHTS)
    with pytest.raises(BundleError, match="has no inputs"):
        read_graph(path)
