from pathlib import Path

import numpy as np
import pytest
from resmem_service.bundle.store import ModelStore
from resmem_service.cli import main

from tests.fit.models import digits, digits_head

X, Y = digits()


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    digits_head(tmp_path / "base.onnx")
    np.save(tmp_path / "x.npy", X[:600])
    np.save(tmp_path / "y.npy", Y[:600])
    pair = f"{tmp_path}/x.npy,{tmp_path}/y.npy"
    store = str(tmp_path / "store")
    return f"fit --model {tmp_path}/base.onnx --data {pair} --store {store} --name digits".split()


def test_it_prints_what_it_chose_and_where_it_is(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [
        "--classes",
        "0,1,2,3,4,5,6,7,8,9",
        "--whiten",
        "no",
        "--m",
        "8",
        "--ef-construction",
        "60",
        "--residuals",
        "float16",
    ]
    assert main([*arguments, *options]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("600 memories; embedding hidden, 24 axes, transform none\nk ")
    assert "leave-one-out, 300" in out
    assert "\nfloat16 <-" in out
    assert "\n300 reporting rows; float16: asked for with --residuals; auto would take" in out
    assert out.endswith(f"{tmp_path}/store/digits/1\n")
    assert err == "600 rows; classification, 10 classes; embedding hidden\n"
    ModelStore(tmp_path / "store").resolve("digits").verify()


def test_what_is_wrong_is_one_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--embedding", "hiden"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "no tensor 'hiden' that depends on its inputs; near to it: hidden" in err


def test_a_store_that_cannot_be_written_is_said(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "store").write_text("a file")
    assert main(arguments) == 2
    assert f"cannot write to {tmp_path}/store" in capsys.readouterr().err


def test_without_the_extra_its_command_is_named(
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("resmem_service.extra.installed", lambda _: False)
    assert main(arguments) == 2
    assert "pip install 'resmem-service[fit]'" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--m", "--max-memories", "--embedding-dim", "--batch-rows"])
@pytest.mark.parametrize("value", ["0", "-3", "many"])
def test_counts_are_at_least_one(
    arguments: list[str], option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, option, value])
    assert option in capsys.readouterr().err


def test_residuals_are_stored_in_a_codec_that_there_is(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, "--residuals", "int8"])
    assert "'int8' is not a residual codec: float32, float16 or top-M; or auto" in (
        capsys.readouterr().err
    )
