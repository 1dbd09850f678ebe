"""`resmem serve`: what keeps it from starting is one line, and status 2."""

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from resmem_service.cli import main

from tests.conftest import FittedModel


def refused(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """The one line that `resmem serve` with these flags ends with."""
    assert main(["serve", *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("resmem: error: ")
    return line


def test_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "--store", str(tmp_path / "nowhere"))
    assert "resmem fit" in line


def test_no_such_model(digits: FittedModel, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "--store", str(digits.store), "--model", "cats")
    assert "cats" in line
    assert "digits" in line
    line = refused(capsys, "--store", str(digits.store), "--model", "digits/9")
    assert "version 9" in line


def test_a_setting_that_will_not_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--port" in refused(capsys, "--port", "many")


def test_a_port_in_use(digits: FittedModel, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refused(capsys, "--store", str(digits.store), "--port", str(port))
    assert f"127.0.0.1:{port}" in line
    assert "RESMEM_PORT" in line


@pytest.mark.parametrize("host", ["203.0.113.1", "::zz"])
def test_an_address_that_is_not_ours(
    digits: FittedModel, capsys: pytest.CaptureFixture[str], host: str
) -> None:
    line = refused(capsys, "--store", str(digits.store), "--host", host, "--port", "0")
    assert host in line


def test_a_file_of_another_size(
    digits: FittedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = copied(digits, tmp_path)
    with (store / "digits/1/base.onnx").open("ab") as file:
        file.write(b"x")
    assert "base.onnx" in refused(capsys, "--store", str(store))


def test_a_damaged_model_of_the_right_size(digits: FittedModel, tmp_path: Path) -> None:
    """Found only when it is loaded, after the server has begun to listen."""
    store = copied(digits, tmp_path)
    model = store / "digits/1/base.onnx"
    model.write_bytes(b"\0" * model.stat().st_size)
    done = served(store, tmp_path)
    assert done.returncode == 2
    assert "base.onnx" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_provider_that_is_not_there(digits: FittedModel, tmp_path: Path) -> None:
    done = served(digits.store, tmp_path, "--provider", "tensorrt")
    assert done.returncode == 2
    assert "tensorrt" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_state_folder_that_cannot_be_written(digits: FittedModel, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    done = served(digits.store, tmp_path)
    assert done.returncode == 2
    assert "state" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def copied(model: FittedModel, folder: Path) -> Path:
    return Path(shutil.copytree(model.store, folder / "store"))


def served(store: Path, folder: Path, *flags: str) -> "subprocess.CompletedProcess[str]":
    """`resmem serve` as a process that is expected to end by itself."""
    paths = ["--store", str(store), "--state-dir", str(folder / "state"), "--port", "0"]
    return subprocess.run(
        [sys.executable, "-m", "resmem_service", "serve", *paths, *flags],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
