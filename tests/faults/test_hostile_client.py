"""A hostile client beside a polite one, for seconds: `benchmarks.speed.hostile` is the long run."""

from pathlib import Path

import pytest

from benchmarks.speed.hostile import measure
from benchmarks.speed.hostile_shapes import SHAPES
from tests.conftest import FittedModel

SECONDS = 10.0


@pytest.mark.timeout(240)
def test_no_polite_request_fails(digits: FittedModel, tmp_path: Path) -> None:
    report = measure(SECONDS, digits.store, tmp_path)
    assert report.predictions.codes.keys() == {"200"}
    assert report.lessons.codes.keys() == {"201"}
    assert report.newcomers.keys() == {"200"}
    assert report.kills == 0
    assert report.largest_mb < 1024
    # Every shape was played, and nothing hostile was taken for a prediction.
    assert report.hostile.keys() == SHAPES.keys()
    assert all(report.hostile.values())
    assert not report.hostile["deep_nesting"].keys() & {"200", "500"}
    # Each bomb is refused for what it holds, in its turn: none is left waiting, or for another.
    assert report.hostile["gzip_bombs"].keys() <= {"400", "413", "422"}
