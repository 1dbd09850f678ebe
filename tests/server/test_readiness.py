"""Once the fleet says that it is ready, no request is refused any more."""

from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Self

import httpx
import pytest

from tests.conftest import FittedModel
from tests.end_to_end.server import Server
from tests.server.everyone import ask

ROW = [0.0] * 64
STAGGERED = """
import os
import time

time.sleep(os.getpid() % 4)
"""
"""Processes that are started one after the other come up a second apart, in some order."""


class Starting(Server):
    """Inside its `with` it listens, or soon will."""

    def __enter__(self) -> Self:
        url = self.wait_for("starting")["url"]
        self.client = httpx.Client(base_url=url, timeout=60)
        return self


@pytest.mark.parametrize("path", ["/readyz", "/v2/health/ready", "/v2/models/digits/ready"])
def test_no_refusal_after_the_first_200(digits: FittedModel, tmp_path: Path, path: str) -> None:
    """21 to 164 requests were refused, by workers that loaded while another was ready."""
    (tmp_path / "sitecustomize.py").write_text(STAGGERED)
    environment = {"PYTHONPATH": str(tmp_path)}
    state = tmp_path / "state"
    with Starting(digits.store, state, environment=environment, workers=4) as server:
        before: Counter[int] = Counter()
        while before[200] == 0:
            with suppress(httpx.TransportError):
                before[ask(server, "GET", path).status_code] += 1
        assert before.keys() == {200, 503}
        after: Counter[int] = Counter()
        for _ in range(150):
            after[ask(server, "POST", "/predict", json={"inputs": [ROW]}).status_code] += 1
            after[ask(server, "GET", path).status_code] += 1
        assert after == {200: 300}
