"""Threads that search beside one that appends, forgets, swaps segments and loses their files.

`.ci/sanitize thread` runs it under ThreadSanitizer; a longer run: `RESMEM_FUZZ=60000`.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = max(2.0, int(os.environ.get("RESMEM_FUZZ", "0")) / 200)


@pytest.mark.timeout(180 + 3 * SECONDS)
def test_threads_that_search_meet_nothing_half_done(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.faults.kernel_threads", str(tmp_path), str(SECONDS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.endswith("whole\n")
