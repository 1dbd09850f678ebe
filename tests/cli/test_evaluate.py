from pathlib import Path

import numpy as np
import pytest
from resmem_service.cli import main

from tests.conftest import FittedModel


def test_it_prints_the_table(
    digits: FittedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "test.npz", pixels=digits.inputs, digit=digits.targets)
    options = ["--store", str(digits.store), "--data", str(tmp_path / "test.npz")]
    assert main(["eval", *options, "--target", "digit", "--model", "digits/1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "digits/1"
    assert lines[3].startswith(f"test, {len(digits.targets)}")


def test_a_wrong_name_or_file_is_one_line(
    digits: FittedModel, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ["--store", str(digits.store)]
    assert main(["eval", *store, "--data", "test.npz", "--model", "other"]) == 2
    assert "has no model 'other'" in capsys.readouterr().err
    assert main(["eval", *store, "--data", "missing.npz"]) == 2
    assert "there is no file missing.npz" in capsys.readouterr().err
