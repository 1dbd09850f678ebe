from typing import Any

import pytest
from resmem_service.load.load import Load
from resmem_service.load.target import Target


@pytest.mark.parametrize(
    "wrong",
    [
        {"requests": []},
        {"connections": 0},
        {"seconds": 0.0},
        {"warmup_s": -1.0},
        {"timeout_s": 0.0},
        {"rate": 0.0},
    ],
)
def test_what_is_no_load(wrong: dict[str, Any]) -> None:
    right: dict[str, Any] = {
        "target": Target("here", 80), "requests": [b"x"], "connections": 1, "seconds": 1.0
    }  # fmt: skip
    Load(**right)
    with pytest.raises(ValueError, match=r".+"):
        Load(**right | wrong)
