"""The served graph, written: the user's model with the two outputs `logits` and `embedding`.

Both are float32, `[n, L]` and `[n, d]`, with a dynamic batch axis; the affine map of the embedding
and the way back from probabilities to logits are nodes of the graph, so that serving knows neither.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    helper,
    numpy_helper,
)

from resmem_service.errors import BundleError
from resmem_service.fit.onnx_graph import BaseGraph, OnnxGraph
from resmem_service.fit.transform import AffineMap

__all__ = ["save_model", "serving_graph"]

_OUTPUTS: Final = ("logits", "embedding")
_SMALLEST: Final = 1e-7
"""Probabilities are raised to this before their logarithm: e^-16, about float32's resolution."""
_LARGEST_PROTOBUF: Final = 1_800_000_000
_OLDEST_OPSET: Final = 8


def serving_graph(
    base: BaseGraph,
    *,
    probabilities: bool = False,
    binary: bool = False,
    transform: AffineMap | None = None,
) -> ModelProto:
    """Write the served graph.

    `probabilities`: the heads are probabilities, of which logits are the logarithm. `binary`: the
    head is the single score z of a two-class model; its logits are `[0, z]`.

    Raises:
        BundleError: the graph cannot be made into one that is served.
    """
    model = ModelProto()
    model.CopyFrom(base.model)
    graph = model.graph
    _check_opset(model)
    taken = sorted({value.name for value in OnnxGraph(graph).inputs} & set(_OUTPUTS))
    if taken:
        raise BundleError(
            f"the model has an input named {taken[0]!r}, which is the name of an output of every "
            "served graph: export the model with another name for it"
        )
    _drop_constant_inputs(model)
    _free_batch_axis(graph)
    tail = _Tail()
    logits = tail.joined([head.tensor for head in base.heads])
    if probabilities:
        logits = tail.logarithm(logits, binary)
    if binary:
        logits = tail.node("MatMul", logits, tail.constant(np.array([[0.0, 1.0]], np.float32)))
    embedding = tail.joined(base.embedding)
    if transform is not None:
        embedding = tail.affine(embedding, transform)
    tail.node("Identity", logits, name="resmem/logits")
    tail.node("Identity", embedding, name="resmem/embedding")
    graph.node.extend(tail.nodes)
    graph.initializer.extend(tail.constants)
    for name in _OUTPUTS:
        _rename(graph, name, f"resmem/model/{name}")
        _rename(graph, f"resmem/{name}", name)
    del graph.output[:]
    graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", None]) for name in _OUTPUTS
    )
    _prune(graph)
    return model


def save_model(model: ModelProto, path: Path) -> None:
    """Write a model to `path`, in one file unless protobuf's limit of 2 GB forbids it.

    What is over the limit goes to `<path>.data` beside it.
    """
    if model.ByteSize() < _LARGEST_PROTOBUF:
        onnx.save_model(model, path)
    else:
        onnx.save_model(
            model,
            path,
            save_as_external_data=True,
            all_tensors_to_one_file=True,
            location=f"{path.name}.data",
        )


class _Tail:
    """Nodes and constants to put at the end of a graph."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def node(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        output = name or f"resmem/{len(self.nodes)}/{kind}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def constant(self, value: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> str:
        name = f"resmem/constant/{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def joined(self, tensors: Sequence[str]) -> str:
        """The tensors as float32, flattened to `[n, m]` each and put side by side."""
        # 0 keeps the batch axis, so that [n] becomes [n, 1] and [n, a, b] becomes [n, a b].
        shape = self.constant(np.array([0, -1], np.int64))
        flat = [
            self.node("Reshape", self.node("Cast", tensor, to=TensorProto.FLOAT), shape)
            for tensor in tensors
        ]
        return flat[0] if len(flat) == 1 else self.node("Concat", *flat, axis=1)

    def logarithm(self, probabilities: str, binary: bool) -> str:
        """`log p`, or for one probability of two classes `log p - log(1 - p)`."""
        floor = self.constant(np.array(_SMALLEST, np.float32))
        logarithm = self.node("Log", self.node("Max", probabilities, floor))
        if not binary:
            return logarithm
        one = self.constant(np.array(1.0, np.float32))
        rest = self.node("Max", self.node("Sub", one, probabilities), floor)
        return self.node("Sub", logarithm, self.node("Log", rest))

    def affine(self, tensor: str, transform: AffineMap) -> str:
        matrix, offset = self.constant(transform.matrix), self.constant(transform.offset)
        if transform.matrix.ndim == 2:
            return self.node("Gemm", tensor, matrix, offset)
        return self.node("Add", self.node("Mul", tensor, matrix), offset)


def _check_opset(model: ModelProto) -> None:
    default = [entry for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if not default:
        model.opset_import.append(helper.make_opsetid("", 13))
    elif default[0].version < _OLDEST_OPSET:
        raise BundleError(
            f"the model has opset {default[0].version}: export it with {_OLDEST_OPSET} or newer "
            "(onnx.version_converter.convert_version does it too)"
        )


def _drop_constant_inputs(model: ModelProto) -> None:
    """Files before IR version 4 list their weights among the inputs, as overridable."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) < len(model.graph.input):
        del model.graph.input[:]
        model.graph.input.extend(inputs)
        model.ir_version = max(model.ir_version, 4)


def _free_batch_axis(graph: GraphProto) -> None:
    """Let the first axis of every input take any length, in Reshapes with a fixed one too."""
    fixed = set()
    for value in OnnxGraph(graph).inputs:
        axis = value.type.tensor_type.shape.dim[0]
        if axis.HasField("dim_value"):
            fixed.add(axis.dim_value)
        axis.dim_param = "batch"
    del graph.value_info[:]
    if fixed:
        for node in graph.node:
            if node.op_type == "Reshape":
                _free_reshape(graph, node, fixed)


def _free_reshape(graph: GraphProto, node: NodeProto, fixed: set[int]) -> None:
    for tensor in graph.initializer:
        if tensor.name == node.input[1]:
            shape = numpy_helper.to_array(tensor).copy()
            break
    else:
        for other in graph.node:
            if other.op_type == "Constant" and other.output[0] == node.input[1]:
                shape = numpy_helper.to_array(other.attribute[0].t).copy()
                break
        else:
            return
    if shape.size > 1 and int(shape[0]) in fixed:
        shape[0] = 0  # the length of the input's first axis
        name = f"{node.output[0]}/resmem/shape"
        graph.initializer.append(numpy_helper.from_array(shape, name))
        node.input[1] = name


def _subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def _rename(graph: GraphProto, old: str, new: str) -> None:
    """Rename a tensor wherever it is made or used, in the graphs of loops and branches too."""
    for node in graph.node:
        for names in (node.input, node.output):
            for position, name in enumerate(names):
                if name == old:
                    names[position] = new
        for inner in _subgraphs(node):
            _rename(inner, old, new)
    for values in (graph.input, graph.output, graph.value_info, graph.initializer):
        for value in values:
            if value.name == old:
                value.name = new


def _used(node: NodeProto) -> Iterator[str]:
    yield from node.input
    for inner in _subgraphs(node):
        for other in inner.node:
            yield from _used(other)
        yield from (value.name for value in inner.output)


def _prune(graph: GraphProto) -> None:
    """Drop what neither output depends on, but no input: the rows still bring it."""
    needed, kept = set(_OUTPUTS), []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(_used(node))
            kept.append(node)
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in reversed(kept)]
    del graph.node[:]
    graph.node.extend(nodes)
    for tensors in (graph.initializer, graph.sparse_initializer):
        for position in reversed(range(len(tensors))):
            tensor = tensors[position]
            name = tensor.name if isinstance(tensor, TensorProto) else tensor.values.name
            if name not in needed:
                del tensors[position]
