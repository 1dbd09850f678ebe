"""mosec: a front in Rust, a worker process in Python, JSON of its own by default.

With dynamic batches, for which a request waits up to a millisecond, or without.
"""

import os
from typing import Any

from mosec import Server, Worker

from benchmarks.speed.servers.model import BATCH, DigitsModel


class Batched(Worker):
    """One row each request, several requests a batch."""

    def __init__(self) -> None:
        super().__init__()
        self._model = DigitsModel()

    def forward(self, data: list[Any]) -> list[Any]:
        """Requests in, answers out, in the same order."""
        rows = [row for question in data for row in question["inputs"]]
        return [{"scores": [scores]} for scores in self._model.scores(rows).tolist()]


class Single(Worker):
    """One request at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._model = DigitsModel()

    def forward(self, data: Any) -> Any:
        """Rows in, scores out."""
        return {"scores": self._model.scores(data["inputs"]).tolist()}


if __name__ == "__main__":
    server = Server()
    if (size := int(os.environ[BATCH])) > 1:
        server.append_worker(Batched, num=1, max_batch_size=size, max_wait_time=1)
    else:
        server.append_worker(Single, num=1)
    server.run()
