"""A server under comparison: started, checked, and ended with all that it started."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from sklearn.neural_network import MLPClassifier

from benchmarks.speed.compare import check
from benchmarks.speed.contender import Contender, Floats, RunningServer
from benchmarks.speed.digits import digits, save_network
from benchmarks.speed.servers.model import MODEL, DigitsModel

ROOT = Path(__file__).parents[3]
ROW = digits()[0][0].tolist()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pixels, labels = digits()
    network = MLPClassifier((8,), max_iter=200, tol=0.01, random_state=0).fit(
        pixels[:300], labels[:300]
    )
    path = tmp_path_factory.mktemp("model") / "scores.onnx"
    save_network(path, network, probabilities=True)
    return path


@pytest.fixture
def inline(model: Path) -> Contender:
    """The bare ASGI app, in this environment."""

    def command(port: int) -> list[str]:
        app = "benchmarks.speed.servers.asgi_inline:app"
        return [sys.executable, "-m", "uvicorn", app, "--port", str(port), "--log-level", "warning"]

    return Contender("inline", "", command, {MODEL: str(model), "PYTHONPATH": str(ROOT)})


@pytest.fixture
def expected(model: Path, monkeypatch: pytest.MonkeyPatch) -> Floats:
    monkeypatch.setenv(MODEL, str(model))
    return DigitsModel().scores(digits()[0][:5])


def test_a_server_is_held_against_onnx_runtime(
    inline: Contender, expected: Floats, tmp_path: Path
) -> None:
    with RunningServer(inline, ROW, tmp_path / "log") as server:
        check(server, expected, expected)
        with pytest.raises(RuntimeError, match="inline says"):
            check(server, expected + 0.001, expected)
        server.contender = replace(inline, tempered=True)
        with pytest.raises(RuntimeError, match="inline says"):
            check(server, expected, expected[:, ::-1])
        server.contender = replace(inline, path="/predict", body=lambda row: {"rows": row})
        with pytest.raises(RuntimeError, match="inline: 500"):
            server.ask(ROW)
        assert np.allclose(expected.sum(axis=1), 1)


def test_a_server_that_does_not_start_shows_its_log(tmp_path: Path) -> None:
    broken = Contender("broken", "", lambda _: [sys.executable, "-c", "raise OSError('no luck')"])
    with pytest.raises(RuntimeError, match="no luck"), RunningServer(broken, ROW, tmp_path / "log"):
        pass


def test_what_a_server_started_ends_with_it(tmp_path: Path) -> None:
    """Its child takes no notice of a polite end, and answers in its place."""
    child = (
        "import http.server, signal, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "class Yes(http.server.BaseHTTPRequestHandler):\n"
        "    def do_POST(self):\n"
        "        self.send_response(200)\n"
        "        self.end_headers()\n"
        "http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Yes).serve_forever()\n"
    )
    parent = (
        "import subprocess, sys\n"
        f"sys.exit(subprocess.call([sys.executable, '-c', {child!r}, sys.argv[1]]))\n"
    )
    family = Contender("family", "", lambda port: [sys.executable, "-c", parent, str(port)])
    with RunningServer(family, ROW, tmp_path / "log") as server:
        (below,) = psutil.Process(server.pid).children(recursive=True)
        assert below.pid != os.getpid()
    below.wait(30)
    assert not psutil.pid_exists(server.pid)
