"""BentoML: a service with an endpoint for batches, which its dispatcher makes as load demands."""

import bentoml
import numpy as np

from benchmarks.speed.servers.model import DigitsModel


@bentoml.service(logging={"access": {"enabled": False}})
class Digits:
    """Rows in, scores out."""

    def __init__(self) -> None:
        self._model = DigitsModel()

    @bentoml.api(batchable=True)
    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """Scores of the rows of one request or several."""
        return self._model.scores(inputs)
