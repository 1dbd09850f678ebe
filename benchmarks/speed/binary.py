"""Batches over the Open Inference Protocol: binary tensors beside JSON, beside no server at all.

    python -m benchmarks.speed.binary

The plain loop runs in this process: ONNX Runtime, then the search kernel, batch after batch, as the
server does for each request. Two models: the bundle that ships (28 x 28 bytes a row, 20,000
memories, d = 32) and the perceptron of `benchmarks.speed.compare` (64 floats a row, 60,000
memories, d = 64, k = 50). Load and server share this machine's cores; the rounds alternate, and a
ratio is the median over them.
"""

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from resmem_service.bundle.store import Bundle, ModelStore
from resmem_service.inference.base_model import BaseModel
from resmem_service.inference.residuals import base_prediction
from resmem_service.inference.rows import Rows
from resmem_service.load.generator import carry_out
from resmem_service.load.load import Load
from resmem_service.load.process_tree import ProcessTree
from resmem_service.load.target import Target
from resmem_service.memory.memory import ResidualMemory

from benchmarks.quality.server import Server
from benchmarks.speed.digit_models import ensure_models
from benchmarks.speed.digits import digits

_OUT = Path("benchmarks/out")
_SAMPLE = Path("tests/data/fashion_mnist_test_500.npz")
_WAYS = ("plain loop", "binary", "binary, scores alone", "JSON of the protocol", "/predict")
_BATCHES = 8
_DATATYPES = {"uint8": "UINT8", "float32": "FP32"}

Request = tuple[str, bytes, dict[str, str]]
"""Path, body and headers."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One way of having rows predicted, in one round."""

    rows_per_s: float
    cpu_us_per_row: float
    client_load: float = 0.0
    """The share of one core that the client took."""


class PlainLoop:
    """What a program would do that has the model and the memory to itself."""

    def __init__(self, bundle: Bundle) -> None:
        manifest = bundle.manifest
        self._task, self._temperature = manifest.task, manifest.parameters.temperature
        self._rule = manifest.parameters.rule()
        self._model = BaseModel(bundle.model_path, inputs=manifest.inputs, provider="cpu")
        self._memory = ResidualMemory.open(
            None, fitted=bundle.memories_path, shape=manifest.memory_shape()
        )
        self._memory.warm()

    def scores(self, batch: Rows) -> NDArray[np.float32]:
        """`[n, L]`."""
        described = self._model.run(batch)
        base = base_prediction(described.logits, self._task, self._temperature)
        return base + self._memory.correct(described.embeddings, self._rule).residuals

    def measure(self, batches: Sequence[Rows], seconds: float) -> Measured:
        """Goes through the batches again and again."""
        rows, began, cpu = 0, time.perf_counter(), time.process_time()
        while (took := time.perf_counter() - began) < seconds:
            for batch in batches:
                self.scores(batch)
                rows += len(batch)
        return Measured(rows / took, (time.process_time() - cpu) / rows * 1e6)


def requests(name: str, batches: Sequence[Rows]) -> dict[str, list[Request]]:
    """The same rows, in every way that they can be sent."""
    infer = f"/v2/models/{name}/infer"
    ways: dict[str, list[Request]] = {way: [] for way in _WAYS[1:]}
    for batch in batches:
        ((tensor, array),) = batch.arrays.items()
        described: dict[str, Any] = {
            "name": tensor,
            "shape": list(array.shape),
            "datatype": _DATATYPES[array.dtype.name],
        }
        raw = array.tobytes()
        there = {"inputs": [{**described, "parameters": {"binary_data_size": len(raw)}}]}
        wanted = {"outputs": [{"name": "scores"}], **there}
        for way, value in (("binary", there), ("binary, scores alone", wanted)):
            head = json.dumps({**value, "parameters": {"binary_data_output": True}}).encode()
            headers = {
                "content-type": "application/octet-stream",
                "inference-header-content-length": str(len(head)),
            }
            ways[way].append((infer, head + raw, headers))
        flat = {"inputs": [{**described, "data": array.ravel().tolist()}]}
        ways["JSON of the protocol"].append((infer, json.dumps(flat).encode(), {}))
        ways["/predict"].append(("/predict", json.dumps({"inputs": array.tolist()}).encode(), {}))
    return ways


def measure(
    server: Server, sent: Sequence[Request], rows: int, connections: int, seconds: float
) -> Measured:
    """What the server makes of the requests, over and over."""
    target = Target("127.0.0.1", server.port)
    load = Load(
        target,
        [target.post(*request) for request in sent],
        connections,
        seconds,
        warmup_s=0.5,
        pid=ProcessTree.listening(target).root.pid,
    )
    result = carry_out(load)
    if set(result.counts()) != {"200"}:
        raise RuntimeError(f"not every answer was 200: {result.counts()}")
    assert result.cpu_us is not None
    return Measured(result.per_second * rows, result.cpu_us / rows, result.client_load)


def compare(
    store: Path, name: str, inputs: NDArray[Any], options: argparse.Namespace
) -> dict[str, list[Measured]]:
    """Every way, in alternating rounds."""
    bundle, size = ModelStore(store).resolve(name), options.rows
    index = np.arange(_BATCHES * size) % len(inputs)
    tensor = bundle.manifest.inputs[0].name
    batches = [Rows({tensor: inputs[part]}) for part in index.reshape(_BATCHES, size)]
    loop, ways = PlainLoop(bundle), requests(name, batches)
    rounds: dict[str, list[Measured]] = {way: [] for way in _WAYS}
    state = _OUT / "binary-state"
    shutil.rmtree(state, ignore_errors=True)
    with Server(store, name, state, _OUT / "binary-server.log") as server:
        loop.measure(batches, 0.5)
        for _ in range(options.rounds):
            rounds["plain loop"].append(loop.measure(batches, options.seconds))
            for way, sent in ways.items():
                rounds[way].append(
                    measure(server, sent, size, options.connections, options.seconds)
                )
    shutil.rmtree(state)
    return rounds


def median_ratio(of: Sequence[float], to: Sequence[float]) -> float:
    """The median over rounds of one by the other."""
    return float(np.median(np.divide(of, to)))


def show(title: str, rounds: dict[str, list[Measured]], rows: int) -> dict[str, Any]:
    """Prints a table; what goes to the file."""
    print(f"\n{title}, {rows} rows a request")
    print(f"{'':24}{'rows/s':>10}{'of the loop':>13}{'CPU us/row':>12}{'of the loop':>13}")
    results: dict[str, Any] = {}
    loop = rounds["plain loop"]
    for way, measured in rounds.items():
        speed, cost = (
            [getattr(one, key) for one in measured] for key in ("rows_per_s", "cpu_us_per_row")
        )
        ratio = median_ratio(speed, [one.rows_per_s for one in loop])
        cost_ratio = median_ratio(cost, [one.cpu_us_per_row for one in loop])
        print(
            f"{way:24}{np.median(speed):>10,.0f}{ratio:>13.2f}"
            f"{np.median(cost):>12.2f}{cost_ratio:>13.2f}"
        )
        results[way] = {
            "rows_per_s_ratio": ratio,
            "cpu_ratio": cost_ratio,
            "rounds": [asdict(one) for one in measured],
        }
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=256, help="rows of a request")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each way in each round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    with np.load(_SAMPLE) as sample:
        images = sample["images"]
    results = {}
    for title, store, name, inputs in (
        ("The shipped bundle, 784 bytes a row", Path("model_store"), "fashion", images),
        ("Digits, 64 floats a row", ensure_models().store, "many", digits()[0]),
    ):
        results[title] = show(title, compare(store, name, inputs, options), options.rows)
    (_OUT / "binary.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
