"""`resmem use`: what is marked is what is served next."""

import shutil
from pathlib import Path

import pytest
from resmem_service.bundle.store import ModelStore
from resmem_service.cli import main

from tests.conftest import TwoVersions


@pytest.fixture
def store(digits_twice: TwoVersions, tmp_path: Path) -> Path:
    return Path(shutil.copytree(digits_twice.store, tmp_path / "store"))


def current(store: Path) -> str:
    return ModelStore(store).resolve("digits").reference


def test_there_and_back(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert current(store) == "digits/2"
    for version in (1, 2):
        assert main(["use", f"digits/{version}", "--store", str(store)]) == 0
        assert capsys.readouterr().out.startswith(f"digits/{version} is current")
        assert current(store) == f"digits/{version}"


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("digits/3", "no version 3; it has: 1, 2"),
        ("digits", "NAME/VERSION"),
        ("cats/1", "no model 'cats'"),
        ("digits/..", "version"),
    ],
)
def test_what_is_not_there(
    store: Path, capsys: pytest.CaptureFixture[str], model: str, words: str
) -> None:
    assert main(["use", model, "--store", str(store)]) == 2
    assert words in capsys.readouterr().err
    assert current(store) == "digits/2"


def test_what_is_damaged(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (store / "digits/1/base.onnx").unlink()
    assert main(["use", "digits/1", "--store", str(store)]) == 2
    assert "base.onnx" in capsys.readouterr().err
    assert current(store) == "digits/2"
