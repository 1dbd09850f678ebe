"""`resmem bench` against the real server, and everything that keeps it from measuring."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from resmem_service.cli import main

from tests.conftest import FittedModel
from tests.end_to_end.server import Server

QUICK = ("--duration", "0.4", "--warmup", "0.1", "--concurrency", "4")


@pytest.fixture(scope="module")
def server(digits: FittedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    state = tmp_path_factory.mktemp("state")
    with Server(digits.store, state, environment={"RESMEM_PREDICT_KEYS": "key"}) as running:
        yield running


@pytest.fixture
def flags(server: Server, tmp_path: Path) -> list[str]:
    plot = str(tmp_path / "plot.png")
    return [
        "bench",
        "--url",
        str(server.client.base_url),
        "--plot",
        plot,
        "--api-key",
        "key",
        *QUICK,
    ]


@pytest.fixture
def data(digits: FittedModel, tmp_path: Path) -> str:
    np.savez(tmp_path / "rows.npz", pixels=digits.inputs, y=digits.targets)
    return str(tmp_path / "rows.npz")


def refused(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """The one line that `resmem bench` with these flags ends with."""
    assert main(["bench", *flags]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("resmem: error: ")
    return line


def test_what_it_prints(
    server: Server,
    flags: list[str],
    data: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*flags, "--data", data, "--rows", "8"]) == 0
    printed = capsys.readouterr().out
    assert "digits/1, 900 memories" in printed
    told = dict(line.split(None, 1) for line in printed.splitlines()[2:])
    per_second, rows = (
        float(line.split()[1].replace(",", "")) for line in printed.splitlines() if "s/s " in line
    )
    assert rows == pytest.approx(8 * per_second, rel=0.01)
    assert told["200"].endswith("requests")
    assert f"process {server.process.pid}" in printed
    assert "us a request" in printed
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_json_with_a_rate_and_noise(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*flags, "--json", "--rate", "50"]) == 0
    printed = capsys.readouterr()
    assert "noise" in printed.err
    summary = json.loads(printed.out)
    assert abs(summary["outcomes"]["200"]["requests"] - 20) <= 1
    assert summary["latency_ms"]["p50"] <= summary["latency_ms"]["p99"]
    assert summary["cpu_us_per_request"] > 0
    assert summary["rows_per_request"] == 1


def test_a_body_keeps_its_options(flags: list[str], digits: FittedModel, tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"inputs": digits.inputs[:2].tolist(), "top": 0}))
    asked = [*flags, "--data", str(body)]
    assert main(asked) == 2, "the server refuses `top: 0`, so it must have come"
    body.write_text(json.dumps({"inputs": digits.inputs[:2].tolist(), "top": 1}))
    assert main(asked) == 0


def test_a_key_that_nobody_knows(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "401: the key in the Authorization header is not one" in refused(
        capsys, *flags[1:], "--api-key", "other"
    )


def test_rows_that_do_not_fit(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "wrong.npz", pixels=np.zeros((3, 9), np.float32))
    assert "wrong.npz" in refused(capsys, *flags[1:], "--data", str(tmp_path / "wrong.npz"))


def test_nobody_there(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "--url", "http://127.0.0.1:1")
    assert "refused; is the server running?" in line


def test_no_url(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "--url", "here").startswith("resmem: error: url: ")


def test_no_such_process(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "pid: there is no process" in refused(capsys, *flags[1:], "--pid", "4194304")


@pytest.mark.parametrize(
    ("flag", "number"),
    [("--rows", "0"), ("--concurrency", "0"), ("--duration", "0"), ("--rate", "0"),
     ("--warmup", "-1"), ("--timeout", "nan"), ("--pid", "x")],
)  # fmt: skip
def test_numbers_that_will_not_do(
    flag: str, number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["bench", flag, number])
    assert flag in capsys.readouterr().err


def test_without_the_extra(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resmem_service.extra.installed", lambda _: False)
    assert "pip install 'resmem-service[bench]'" in refused(capsys)
    assert "matplotlib" in refused(capsys)


def test_a_server_that_is_killed(digits: FittedModel, tmp_path: Path, data: str) -> None:

    with Server(digits.store, tmp_path / "state") as running:
        command = ["bench", "--url", str(running.client.base_url), "--duration", "60"]
        timer = threading.Timer(1.0, running.kill)
        timer.start()
        done = subprocess.run(
            [sys.executable, "-m", "resmem_service", *command, "--data", data, "--warmup", "0"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        timer.join()
    assert done.returncode == 2
    assert "went away" in done.stderr or "is the server running" in done.stderr
    assert "Traceback" not in done.stderr
