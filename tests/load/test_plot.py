from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from resmem_service.errors import LoadFailed
from resmem_service.load.plot import draw
from resmem_service.load.result import RequestGroup, Result

DUE = np.linspace(0, 4, 500)
RESULT = Result(
    4.0, 500, {"200": RequestGroup(DUE, 1e-3 + DUE / 1e3, 0 * DUE)}, np.empty(0), 0.0, 0.2, 0.01
)


def ink(path: Path) -> float:
    """The share of the picture that is not white."""
    pixels = matplotlib.image.imread(path)[..., :3]
    return float((pixels.min(axis=2) < 0.99).mean())


def test_draws_a_picture(tmp_path: Path) -> None:
    draw(tmp_path / "full", RESULT, "a title")
    draw(tmp_path / "empty", replace(RESULT, outcomes={}), "a title")
    assert (tmp_path / "full").read_bytes().startswith(b"\x89PNG")
    assert ink(tmp_path / "full") > ink(tmp_path / "empty") > 0


def test_one_request_is_enough(tmp_path: Path) -> None:
    one = RequestGroup(np.array([1.0]), np.array([0.002]), np.array([0.0]))
    draw(tmp_path / "one.png", replace(RESULT, outcomes={"200": one}), "")
    assert ink(tmp_path / "one.png") > 0


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="No such file"):
        draw(tmp_path / "no" / "plot.png", RESULT, "")
