"""LitServe: an HTTP process and a worker process, batches, and ZeroMQ between the two.

`fast_queue` is what it calls the latter, and advises for high throughput.
"""

import argparse
import os
from typing import Any

import litserve as ls
import numpy as np
from fastapi import Request

from benchmarks.speed.servers.model import BATCH, DigitsModel


class Digits(ls.LitAPI):
    """One row each request, several requests a batch."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - the signature is LitServe's
        """Loads the model, in the worker."""
        self._model = DigitsModel()

    # LitServe reads from the annotation that it should decode the body as JSON, and hands that on.
    def decode_request(self, request: Request) -> Any:
        """The row of a request."""
        return np.array(request["inputs"][0], np.float32)

    def predict(self, x: Any) -> Any:
        """The scores of a batch."""
        return self._model.scores(x)

    def encode_response(self, output: Any) -> Any:
        """The answer to a request."""
        return {"scores": [output.tolist()]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    api = Digits(max_batch_size=int(os.environ[BATCH]), batch_timeout=0.001)
    server = ls.LitServer(api, accelerator="cpu", fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=parser.parse_args().port,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
