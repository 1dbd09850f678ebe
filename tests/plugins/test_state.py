"""Runs of pytest whose tests change the process that they share."""

from pathlib import Path

import pytest

from tests.plugins.test_guard import run


def test_each_change_is_named_and_put_back(tmp_path: Path) -> None:
    changes = {
        "current folder": "os.chdir('/')",
        "umask": "os.umask(0o011)",
        "resource limits": "resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, -1))",
        "environment": "os.environ['SET_BY_A_TEST'] = '1'",
        "signal handlers": "signal.signal(signal.SIGUSR1, lambda *_: None)",
        "switch interval": "sys.setswitchinterval(0.5)",
        "garbage collector": "gc.disable()",
        "logging": "logging.disable(logging.ERROR)",
        "sys.path": "sys.path.append('/nowhere')",
        "folder for temporary files": "tempfile.tempdir = '/nowhere'",
    }
    tests = "import gc, logging, os, resource, signal, sys, tempfile\n"
    for number, change in enumerate(changes.values()):
        tests += f"def test_{number}():\n    {change}\n"
    tests += "def test_last():\n    pass\n"
    status, output = run(tmp_path, tests, plugins=["tests.plugins.guard", "tests.plugins.state"])
    assert status == 1, output
    assert f"{len(changes) + 1} passed, {len(changes)} errors" in output, output
    for part in changes:
        assert f"\n{part}: " in output, part


@pytest.mark.parametrize("fixture", ["monkeypatch", "capfd"])
def test_what_is_put_back_is_no_change(tmp_path: Path, fixture: str) -> None:
    status, output = run(
        tmp_path,
        f"""
        def test_one({fixture}, request, tmp_path):
            if {fixture!r} == "monkeypatch":
                {fixture}.chdir(tmp_path)
                {fixture}.setenv("SET_BY_A_TEST", "1")
        """,
        plugins=["tests.plugins.guard", "tests.plugins.state"],
    )
    assert status == 0, output
