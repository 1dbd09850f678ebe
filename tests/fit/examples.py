"""Real rows as the base sees them, from the digits' network and the diabetes' ridge."""

from functools import cache

import numpy as np
from resmem_service.fit.neighbours import Neighbours, nearest
from resmem_service.fit.tuning import Outputs
from sklearn.linear_model import Ridge

from tests.fit.models import diabetes, digits, mlp_weights

__all__ = ["digits_rows", "linear_rows"]


@cache
def digits_rows(memories: int = 400, queries: int = 60) -> tuple[Outputs, Neighbours, Outputs]:
    """Queries that the network has not seen, their 20 neighbours, memories."""
    x, y = digits()
    weights = mlp_weights()
    hidden = np.maximum(x @ weights["w1"] + weights["b1"], 0)
    logits = hidden @ weights["w2"] + weights["b2"]
    targets = y.astype(np.int32)
    asked = slice(900, 900 + queries)
    near = nearest(hidden[asked], hidden[:memories], 20)
    return (
        Outputs(logits[asked], targets[asked]),
        near,
        Outputs(logits[:memories], targets[:memories]),
    )


@cache
def linear_rows(outputs: int = 2) -> tuple[Outputs, Neighbours, Outputs]:
    """The same for a linear model of several outputs, of very different sizes."""
    x, y = diabetes()
    targets = np.stack([y, x[:, 0] * 1000, y**2][:outputs], axis=1).astype(np.float32)
    logits = Ridge(alpha=0.1).fit(x[:200], targets[:200]).predict(x).astype(np.float32)
    near = nearest(x[300:360] * 10, x[:300] * 10, 20)
    return (
        Outputs(logits[300:360], targets[300:360]),
        near,
        Outputs(logits[:300], targets[:300]),
    )
