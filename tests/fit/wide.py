"""A wide problem of real rows: three digits side by side are one of a thousand numbers."""

from functools import cache
from pathlib import Path

import numpy as np
from onnx import helper
from resmem_service.fit.neighbours import Neighbours, nearest
from resmem_service.fit.tuning import Outputs

from tests.fit.models import Array, digits, mlp_weights, save

__all__ = ["triple_network", "triples", "wide_rows"]


@cache
def triples(rows: int, seed: int, *, unseen: bool = False) -> tuple[Array, Array]:
    """Images `[n, 192]` and numbers 0 to 999 `[n]`; `unseen` by the digits' network."""
    x, y = digits()
    random = np.random.default_rng(seed)
    chosen = random.integers(900 if unseen else 0, len(x) if unseen else 900, (rows, 3))
    return x[chosen].reshape(rows, 192), y[chosen] @ np.array([100, 10, 1])


@cache
def _weights() -> dict[str, Array]:
    """The digits' network on each of the three: the logit of abc is the sum of three logits."""
    one = mlp_weights()
    numbers = np.arange(1000)
    places = (numbers // 100, numbers // 10 % 10, numbers % 10)
    return {
        "w1": np.kron(np.eye(3, dtype=np.float32), one["w1"]),
        "b1": np.tile(one["b1"], 3),
        "w2": np.concatenate([one["w2"][:, place] for place in places]),
        "b2": np.sum([one["b2"][place] for place in places], axis=0),
    }


def triple_network(path: Path) -> Path:
    """Input `image` [n, 192], embedding `hidden` [n, 72], output `scores` [n, 1000]."""
    nodes = [
        helper.make_node("Gemm", ["image", "w1", "b1"], ["before"]),
        helper.make_node("Relu", ["before"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "w2", "b2"], ["scores"]),
    ]
    return save(path, nodes, {"image": ["n", 192]}, ["scores"], _weights())


@cache
def wide_rows(memories: int = 600, queries: int = 80) -> tuple[Outputs, Neighbours, Outputs]:
    """Queries that the network has not seen, their 10 neighbours, memories."""
    weights = _weights()

    def run(x: Array, y: Array) -> tuple[Outputs, Array]:
        hidden = np.maximum(x @ weights["w1"] + weights["b1"], 0)
        return Outputs(hidden @ weights["w2"] + weights["b2"], y.astype(np.int32)), hidden

    known, here = run(*triples(memories, 0))
    asked, there = run(*triples(queries, 1, unseen=True))
    return asked, nearest(there, here, 10), known
