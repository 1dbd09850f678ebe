"""The user's ONNX graph, read: its inputs, what it answers with, and where its embedding is."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from resmem_service.errors import BundleError
from resmem_service.extra import missing
from resmem_service.inference.tensor_spec import TensorSpec

try:
    import onnx
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto
    from onnx.helper import tensor_dtype_to_np_dtype
except ImportError as error:
    raise missing("onnx", "`resmem fit`") from error

__all__ = ["BaseGraph", "Head", "OnnxGraph", "read_graph"]

_FLOATS: Final = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
_SHAPE_ONLY: Final = frozenset(
    ["Identity", "Cast", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze"]
)
_QUANTISERS: Final = frozenset(["QuantizeLinear", "DynamicQuantizeLinear"])
_PASSED: Final = frozenset(
    ["Softmax", "LogSoftmax", "Sigmoid", "Add", "Sub", "Mul", "Div", "Clip", "DequantizeLinear"]
).union(_SHAPE_ONLY, _QUANTISERS)
_FINAL: Final = frozenset(
    ["Gemm", "MatMul", "FusedGemm", "FusedMatMul", "MatMulInteger", "QLinearMatMul"]
)
_PREFERRED: Final = ("logits", "probabilities", "output_probability", "scores", "output")


@dataclass(frozen=True, slots=True)
class Head:
    """One output of the model, before the Softmax or Sigmoid that it may end in."""

    tensor: str
    activation: str | None
    """`Softmax` or `Sigmoid` where the model applies it to `tensor`."""
    answered: str
    """The tensor with which the model answers: `tensor` itself, or after the activation."""


@dataclass(frozen=True, slots=True)
class BaseGraph:
    """What `fit` needs to know of the user's model."""

    model: ModelProto
    inputs: tuple[TensorSpec, ...]
    heads: tuple[Head, ...]
    embedding: tuple[str, ...]
    """The tensors that the embedding is concatenated from."""
    of_inputs: bool
    """Whether the embedding is the inputs themselves."""
    classes: tuple[str, ...] | None
    """Class names that the model carries (scikit-learn's do)."""

    @property
    def embedding_name(self) -> str:
        """What the manifest says."""
        return "input" if self.of_inputs else "+".join(self.embedding)


class OnnxGraph:
    """A graph with the look-ups that walking it backwards takes."""

    def __init__(self, graph: GraphProto) -> None:
        self.graph = graph
        self._constants = {tensor.name for tensor in graph.initializer}
        self._constants |= {tensor.values.name for tensor in graph.sparse_initializer}
        self.inputs = [value for value in graph.input if value.name not in self._constants]
        self.producers: dict[str, NodeProto] = {}
        for node in graph.node:  # in topological order, so that one pass settles what is constant
            self.producers.update(dict.fromkeys(node.output, node))
            inside = any(attribute.g.node or attribute.graphs for attribute in node.attribute)
            if not inside and all(name in self._constants for name in node.input if name):
                self._constants.update(node.output)

    def varying(self, names: Iterable[str]) -> list[str]:
        """Those of the tensors that depend on the inputs."""
        return [name for name in names if name and name not in self._constants]

    def tensors(self) -> set[str]:
        """Every tensor that depends on the inputs, the inputs included."""
        return {value.name for value in self.inputs} | set(self.varying(self.producers))

    def back(self, tensor: str, through: frozenset[str]) -> Iterator[str]:
        """The tensor, and those it is made of, as long as single-input nodes of these kinds do."""
        while True:
            yield tensor
            node = self.producers.get(tensor)
            if node is None or node.op_type not in through:
                return
            # The shape that a Reshape is given may be computed from the input too.
            names = node.input[:1] if node.op_type in _SHAPE_ONLY else node.input
            sources = self.varying(names)
            if len(sources) != 1:
                return
            tensor = sources[0]


def read_graph(
    path: Path, *, outputs: Sequence[str] = (), embedding: str | None = None
) -> BaseGraph:
    """Read an ONNX file, its external data included.

    `outputs` names what the model answers with, where it has several outputs; `embedding` a
    tensor, or `input` for the model's inputs; None looks for the input of the last Gemm or MatMul.

    Raises:
        BundleError: no ONNX file, inputs of a type or shape that cannot be served, outputs or an
            embedding that cannot be found; says which option decides.
    """
    if not path.is_file():
        raise BundleError(f"there is no model {path}")
    try:
        model = onnx.load(path)
    except Exception as error:  # onnx, protobuf and the file system each have their own
        raise BundleError(f"{path} is not an ONNX model that can be read: {error}") from error
    if not model.graph.node or not model.graph.output:
        raise BundleError(f"{path} is not an ONNX model: it has no nodes or no outputs")
    graph = OnnxGraph(model.graph)
    inputs = tuple(_spec(value) for value in graph.inputs)
    if not inputs:
        raise BundleError(f"{path} has no inputs")
    classes = _classes(graph.graph)
    heads = tuple(_head(graph, name) for name in _outputs(graph, outputs))
    tensors = _embedding(graph, heads, embedding)
    return BaseGraph(
        model, inputs, heads, tensors or tuple(s.name for s in inputs), not tensors, classes
    )


def _spec(value: ValueInfoProto) -> TensorSpec:
    name, tensor = value.name, value.type.tensor_type
    if not value.type.HasField("tensor_type") or tensor.elem_type == TensorProto.UNDEFINED:
        raise BundleError(f"input {name!r} is not a tensor: only tensors can be served")
    if not tensor.HasField("shape") or not tensor.shape.dim:
        raise BundleError(
            f"input {name!r} declares no batch axis: export the model with shapes, the batch first"
        )
    axes = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim[1:]]
    try:
        dtype = np.dtype(tensor_dtype_to_np_dtype(tensor.elem_type)).name
        return TensorSpec(name, dtype, tuple(axes))
    except ValueError as error:
        raise BundleError(f"{error}: encode it as numbers outside the model") from error


def _outputs(graph: OnnxGraph, wanted: Sequence[str]) -> list[str]:
    declared = {value.name: value for value in graph.graph.output}
    for name in wanted:
        if name not in declared:
            raise BundleError(
                f"the model has no output {name!r}; it has: {', '.join(declared)}", "output"
            )
    if wanted:
        return list(wanted)
    able = [
        name
        for name, value in declared.items()
        if value.type.tensor_type.elem_type in _FLOATS
        or value.type.WhichOneof("value") != "tensor_type"
    ]
    preferred = [name for name in _PREFERRED if name in able]
    if len(able) > 1 and preferred:
        return preferred[:1]
    if len(able) != 1:
        raise BundleError(
            f"which output is the prediction? Name it with --output (several for a regression with "
            f"several outputs); the model has: {', '.join(declared)}",
            "output",
        )
    return able


def _head(graph: OnnxGraph, output: str) -> Head:
    """The scores behind an output: ZipMap undone, Softmax or Sigmoid taken off."""
    node = graph.producers.get(output)
    if node is not None and node.op_type == "ZipMap":
        output = node.input[0]
    for tensor in graph.back(output, frozenset(["Identity", "Cast", "Dropout"])):
        node = graph.producers.get(tensor)
        if node is not None and node.op_type in ("Softmax", "Sigmoid"):
            return Head(node.input[0], node.op_type, tensor)
    return Head(output, None, output)


def _classes(graph: GraphProto) -> tuple[str, ...] | None:
    """Names that a scikit-learn style classifier or its ZipMap carries; None if they disagree."""
    found: set[tuple[str, ...]] = set()
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in ("classlabels_strings", "classlabels_string"):
                found.add(tuple(name.decode() for name in attribute.strings))
            elif attribute.name in ("classlabels_int64s", "classlabels_ints"):
                found.add(tuple(map(str, attribute.ints)))
    found.discard(())
    return found.pop() if len(found) == 1 else None


def _embedding(graph: OnnxGraph, heads: Sequence[Head], option: str | None) -> tuple[str, ...]:
    """The tensors of the embedding; none if it is the inputs."""
    names = [value.name for value in graph.inputs]
    if option is not None:
        tensors = graph.tensors()
        if option in tensors:
            return (option,)
        if option == "input":
            return ()
        near = difflib.get_close_matches(option, sorted(tensors), n=3, cutoff=0.5)
        raise BundleError(
            f"the model has no tensor {option!r} that depends on its inputs; "
            f"{'near to it: ' + ', '.join(near) if near else _candidates(graph)}",
            "embedding",
        )
    ends = [_penultimate(graph, head) for head in heads]
    found = list(dict.fromkeys(tensor for tensor in ends if tensor is not None))
    if not found:
        raise BundleError(
            f"found no embedding behind {heads[0].tensor!r}: no Gemm or MatMul with fixed weights "
            f"ends the model. Name a tensor with --embedding TENSOR ({_candidates(graph)}), or use "
            "--embedding input for the inputs themselves",
            "embedding",
        )
    # A linear model: what its last layer reads is the input itself.
    if all(list(graph.back(tensor, _SHAPE_ONLY))[-1] in names for tensor in found):
        return ()
    return tuple(found)


def _penultimate(graph: OnnxGraph, head: Head) -> str | None:
    """What the last Gemm or MatMul before a head reads."""
    for tensor in graph.back(head.tensor, _PASSED):
        node = graph.producers.get(tensor)
        if node is None or node.op_type not in _FINAL:
            continue
        sources = graph.varying(node.input)
        # The quantised forms compute their scales from the input as well.
        if len(sources) == 1 or node.op_type == "MatMulInteger":
            return _unquantised(graph, sources[0])
    return None


def _unquantised(graph: OnnxGraph, tensor: str) -> str:
    node = graph.producers.get(tensor)
    return node.input[0] if node is not None and node.op_type in _QUANTISERS else tensor


def _candidates(graph: OnnxGraph) -> str:
    late = [node.output[0] for node in reversed(graph.graph.node) if graph.varying(node.output[:1])]
    return "the last ones are: " + ", ".join(late[:8])
