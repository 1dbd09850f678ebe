"""What the operating system refuses is one line with the path, whichever command meets it.

A store that could not be read was 35 lines of traceback; a damaged header of an array 44, on Python
3.12 and later, without the name of the file.
"""

import errno
from pathlib import Path

import numpy as np
import pytest
from resmem_service.cli import main

from tests.conftest import FittedModel

COMMANDS = {
    "serve": ["--port", "0"],
    "serve with workers": ["--port", "0", "--workers", "2"],
    "verify": [],
    "inspect": [],
    "repair": [],
    "compact": [],
    "backup": ["--to", "backup"],
    "export": ["--to", "memories.jsonl"],
    "use": ["digits/1"],
    "rebase": ["--from", "1"],
    "eval": ["--data", "data.npz"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_store_that_cannot_be_read(
    digits: FittedModel,
    tmp_path: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("data.npz", x=digits.inputs, y=digits.targets)

    def refuse(path: Path) -> object:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    arguments = [name.split()[0], *COMMANDS[name], "--store", str(digits.store)]
    if name != "use":
        arguments += ["--state-dir", "state"] if name != "eval" else []
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(digits.store) in line
    assert "Permission denied" in line


@pytest.mark.parametrize("name", ["x.npy", "train.npz"])
def test_a_data_set_with_a_damaged_header(
    digits: FittedModel, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    x, y = np.ones((20, 3), np.float32), np.arange(20) % 2
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    np.savez(tmp_path / "train.npz", x=x, y=y)
    path = tmp_path / name
    content = bytearray(path.read_bytes())
    # The closing bracket of the shape: Python's parser asks for more lines.
    at = content.index(b"), }")
    content[at] = ord("(")
    path.write_bytes(content)
    data = f"{path},{tmp_path / 'y.npy'}" if name == "x.npy" else str(path)
    model = str(digits.store.parent / "base.onnx")
    arguments = ["fit", "--model", model, "--data", data, "--name", "a"]
    assert main([*arguments, "--store", str(tmp_path / "store")]) == 2
    assert str(path) in capsys.readouterr().err.splitlines()[-1]


def test_class_names_that_are_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "classes.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "base.onnx").write_bytes(b"")
    arguments = ["fit", "--model", str(tmp_path / "base.onnx"), "--data", "x.npz", "--name", "a"]
    classes = ["--classes", str(tmp_path / "classes.txt")]
    assert main([*arguments, *classes, "--store", str(tmp_path / "store")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "classes.txt" in line
