import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@cache
def engine_complaint() -> str | None:
    """Why no Docker engine can be used, or None where one answers."""
    try:
        answer = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no Docker engine: {error}"
    return None if answer.returncode == 0 else f"no Docker engine: {answer.stderr.strip()}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked `engine` are skipped, with the client's own words, where there is none."""
    if item.get_closest_marker("engine") and (complaint := engine_complaint()):
        pytest.skip(complaint)


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT
