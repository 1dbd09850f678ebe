import pytest
from resmem_service.footprint import Footprint

_GIB = 2**30


def test_what_fits_is_not_mentioned(caplog: pytest.LogCaptureFixture) -> None:
    footprint = Footprint(mapped=2 * _GIB, model=_GIB, workers=2, limit=4 * _GIB)
    assert footprint.needed == 4 * _GIB
    assert not footprint.warn()
    assert caplog.messages == []


def test_what_does_not_fit_is_one_line_with_its_numbers(caplog: pytest.LogCaptureFixture) -> None:
    footprint = Footprint(mapped=2 * _GIB, model=_GIB // 2, workers=4, limit=4 * _GIB - 1)
    assert footprint.warn()
    (line,) = caplog.messages
    assert line.startswith(
        "predictions need 4.0 GiB of files in RAM (memories 2.0 GiB, model 512.0 MiB in each of 4 "
        "workers) and the limit is 4.0 GiB: "
    )
    assert "capacity_bytes" in line
