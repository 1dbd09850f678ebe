"""Runs of pytest from a shell that has exported what the tests must not see."""

from pathlib import Path

import pytest

from tests.plugins.test_guard import run


def test_what_the_shell_has_exported_does_not_reach_a_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RESMEM_PORT", "RESMEM_STORE", "ARGS", "VENV", "PYTHON", "MAKEFLAGS"):
        monkeypatch.setenv(name, "leaked")
    monkeypatch.setenv("RESMEM_KILLS", "300")
    monkeypatch.setenv("NO_PROXY", "example.org")
    status, output = run(
        tmp_path,
        """
        import os
        def test_one():
            assert "leaked" not in os.environ.values()
            assert os.environ["RESMEM_KILLS"] == "300"
            assert os.environ["NO_PROXY"] == "example.org,127.0.0.1,localhost,::1"
        """,
        plugins=["tests.plugins.environment", "tests.plugins.guard"],
    )
    assert status == 0, output
