"""Runs of pytest that hang or leave processes, each with limits of a second or two."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.plugins.processes import command_of, kill, living, parents

ROOT = Path(__file__).parents[2]
SHORT = """
from tests.plugins import guard
guard.COLLECTION_S, guard.TEARDOWN_S, guard.END_S, guard.GRACE_S = 4.0, 1.0, 1.0, 0.5
guard._MARGIN_S = 5.0
"""
SLEEPER = "import time; time.sleep(987)"


def start(
    folder: Path, test: str, plugins: Sequence[str] = ("tests.plugins.guard",)
) -> "subprocess.Popen[str]":
    (folder / "pytest.ini").write_text("[pytest]\ntimeout = 1\ntimeout_method = signal\n")
    (folder / "conftest.py").write_text(SHORT)
    (folder / "test_it.py").write_text(textwrap.dedent(test))
    options = [word for name in (*plugins, "no:cacheprovider") for word in ("-p", name)]
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-rA", *options, "test_it.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(
    folder: Path, test: str, plugins: Sequence[str] = ("tests.plugins.guard",)
) -> tuple[int, str]:
    """Exit status and output of one run, its watchdog's words among them."""
    with start(folder, test, plugins) as process:
        try:
            output, _ = process.communicate(timeout=100)
        finally:
            process.kill()
    return process.returncode, output


def sleepers(folder: Path) -> list[int]:
    """What the tests in a folder have started and has not ended."""
    return [one for one in parents(living()) if str(folder) in command_of(one)]


def test_a_test_that_passes_is_left_alone(tmp_path: Path) -> None:
    status, output = run(
        tmp_path,
        """
        import subprocess, sys
        def test_good():
            subprocess.run([sys.executable, "-c", ""], check=True)
        """,
    )
    assert (status, "1 passed" in output) == (0, True), output
    assert "tests:" not in output


def test_a_test_that_hangs_fails_and_the_next_one_runs(tmp_path: Path) -> None:
    status, output = run(
        tmp_path,
        """
        import asyncio, subprocess, sys, threading
        def test_thread():
            threading.Event().wait()
        def test_process():
            subprocess.run([sys.executable, "-c", "import time; time.sleep(99)"])
        def test_loop():
            asyncio.run(asyncio.sleep(99))
        def test_last():
            pass
        """,
    )
    assert status == 1, output
    assert "3 failed, 1 passed" in output, output
    assert output.count("- Failed: Timeout (>1.0s)") == 3


def test_a_teardown_that_hangs_ends_whether_or_not_its_test_failed(tmp_path: Path) -> None:
    status, output = run(
        tmp_path,
        """
        import pytest, threading
        @pytest.fixture
        def thing():
            yield
            threading.Event().wait()
        def test_good(thing):
            pass
        def test_bad(thing):
            assert False
        def test_last():
            pass
        """,
    )
    assert status == 1, output
    assert "1 failed, 2 passed, 2 errors" in output, output


@pytest.mark.parametrize(
    ("test", "doing"),
    [
        ("import time\ntime.sleep(99)", "collection"),
        (
            "import ctypes\ndef test_c():\n    lock = ctypes.create_string_buffer(64)\n"
            "    for _ in range(2):\n        ctypes.PyDLL(None).pthread_mutex_lock(lock)",
            "test_it.py::test_c",
        ),
        (
            "import threading\ndef test_thread():\n    threading.Thread(target=threading.Event()"
            ".wait).start()",
            "the end of the interpreter",
        ),
        (
            "import asyncio, uvloop\ndef test_uvloop():\n    uvloop.run(asyncio.sleep(99))",
            "test_it.py::test_uvloop",
        ),
    ],
)
def test_what_no_signal_handler_interrupts_is_ended(tmp_path: Path, test: str, doing: str) -> None:
    status, output = run(tmp_path, test)
    assert status == -signal.SIGABRT, output
    assert f"tests: pytest hangs and is ended: {doing}" in output
    assert "test_it.py" in output
    assert "Fatal Python error: Aborted" in output


def test_a_process_that_a_test_leaves_is_an_error_and_is_killed(tmp_path: Path) -> None:
    """Also one whose parent has ended, and that stands in a session of its own."""
    status, output = run(
        tmp_path,
        f"""
        import subprocess, sys
        SLEEPER = [sys.executable, "-c", {SLEEPER!r}, {str(tmp_path)!r}]
        def test_one():
            code = f"import subprocess; subprocess.Popen({{SLEEPER!r}}, start_new_session=True)"
            subprocess.run([sys.executable, "-c", code], check=True)
        def test_two():
            pass
        """,
    )
    assert status == 1, output
    assert "ERROR test_it.py::test_one - Failed: left running" in output, output
    assert str(tmp_path) in output
    assert "2 passed, 1 error" in output
    assert not sleepers(tmp_path)


def test_what_a_fixture_of_a_module_runs_may_live_as_long_and_may_start_more(
    tmp_path: Path,
) -> None:
    (tmp_path / "test_last.py").write_text("def test_last():\n    pass\n")
    status, output = run(
        tmp_path,
        f"""
        import subprocess, sys, pytest
        SLEEPER = [sys.executable, "-c", {SLEEPER!r}, {str(tmp_path)!r}]
        STARTS = f"import subprocess; subprocess.Popen({{SLEEPER!r}}); print(flush=True); input()"
        @pytest.fixture(scope="module")
        def server():
            with subprocess.Popen([sys.executable, "-c", f"input(); {{STARTS}}"],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
                yield process
                process.kill()
        def test_one(server):
            server.stdin.write(b"go\\n")
            server.stdin.flush()
            server.stdout.readline()
        def test_two(server):
            pass
        """,
    )
    assert status == 1, output
    assert "ERROR test_it.py::test_two - Failed: left running" in output, output
    assert "2 passed, 1 error" in output
    assert not sleepers(tmp_path)


def test_nothing_lives_longer_than_pytest_that_is_killed(tmp_path: Path) -> None:
    with start(
        tmp_path,
        f"""
        import subprocess, sys, time
        def test_one():
            subprocess.run([sys.executable, "-c", {SLEEPER!r}, {str(tmp_path)!r}])
        """,
    ) as process:
        try:
            deadline = time.monotonic() + 60
            while not sleepers(tmp_path):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            process.kill()
            # The watchdog holds the other end until it has done its work.
            output, _ = process.communicate(timeout=60)
        finally:
            process.kill()
            kill(sleepers(tmp_path))
    assert "tests: killed what the tests have left" in output
    assert not sleepers(tmp_path)
