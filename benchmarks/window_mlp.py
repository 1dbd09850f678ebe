"""The base model of the language benchmark: a window of words, one hidden layer, the next word.

As in Bengio et al., "A Neural Probabilistic Language Model", JMLR 3 (2003), smaller. Penultimate
layer of 128 units. Needs the extra `train`.
"""

import time
from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from benchmarks.brown import WINDOW, Windows

__all__ = ["WindowMlp", "export", "train"]

_BATCH_ROWS = 512
_LEARNING_RATE = 2e-3
_WORD_AXES = 64
_HIDDEN = 128


class WindowMlp(nn.Module):
    """Logits [n, classes] of words int32 [n, WINDOW]."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.table = nn.Embedding(classes, _WORD_AXES)
        self.hidden = nn.Linear(WINDOW * _WORD_AXES, _HIDDEN)
        self.head = nn.Linear(_HIDDEN, classes)

    def forward(self, words: Tensor) -> Tensor:
        """Run the layers."""
        logits: Tensor = self.head(torch.relu(self.hidden(self.table(words).flatten(1))))
        return logits


def train(data: Windows, *, classes: int, epochs: int, seed: int, threads: int) -> WindowMlp:
    """Train on all rows with Adam and cross-entropy; the same arguments, the same model."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    model = WindowMlp(classes)
    words, following = torch.tensor(data.words), torch.tensor(data.following)
    optimiser = torch.optim.Adam(model.parameters(), lr=_LEARNING_RATE)
    for epoch in range(epochs):
        started, total = time.perf_counter(), 0.0
        for rows in torch.split(torch.randperm(len(data)), _BATCH_ROWS):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(model(words[rows]), following[rows])
            loss.backward()
            optimiser.step()
            total += loss.item() * len(rows)
        seconds = time.perf_counter() - started
        print(f"epoch {epoch + 1}: training loss {total / len(data):.4f}, {seconds:.0f} s")
    return model.eval()


def export(model: WindowMlp, path: Path) -> None:
    """Write `model` as ONNX: input `words` int32 [n, WINDOW], output `logits` [n, classes]."""
    weights = [
        numpy_helper.from_array(value.numpy(), name) for name, value in model.state_dict().items()
    ]
    nodes = [
        helper.make_node("Gather", ["table.weight", "words"], ["vectors"]),
        helper.make_node("Flatten", ["vectors"], ["flat"]),
        helper.make_node("Gemm", ["flat", "hidden.weight", "hidden.bias"], ["sum"], transB=1),
        helper.make_node("Relu", ["sum"], ["penultimate"]),
        helper.make_node("Gemm", ["penultimate", "head.weight", "head.bias"], ["logits"], transB=1),
    ]
    words = helper.make_tensor_value_info("words", TensorProto.INT32, ["n", WINDOW])
    logits = helper.make_tensor_value_info(
        "logits", TensorProto.FLOAT, ["n", model.head.out_features]
    )
    graph = helper.make_graph(nodes, "window_mlp", [words], [logits], weights)
    onnx_model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
        producer_name="resmem-service benchmarks",
    )
    onnx.checker.check_model(onnx_model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(onnx_model, path)
