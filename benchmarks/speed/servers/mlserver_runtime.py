"""MLServer: a custom runtime behind the Open Inference Protocol.

In the process that speaks HTTP, as its page on parallel inference advises for light models; with
adaptive batches, for which a request waits up to a millisecond, or without.
"""

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.speed.servers.model import DigitsModel


class Digits(MLModel):
    """Rows in, scores out."""

    async def load(self) -> bool:
        """Loads the model."""
        self._model = DigitsModel()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Scores of the rows of one request or several."""
        rows = NumpyCodec.decode_input(payload.inputs[0])
        output = NumpyCodec.encode_output("scores", self._model.scores(rows.astype(np.float32)))
        return InferenceResponse(model_name=self.name, outputs=[output])
