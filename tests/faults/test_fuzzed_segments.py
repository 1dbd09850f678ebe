"""Files of a sealed segment that were changed at random end in an error that names them.

A longer run: `RESMEM_FUZZ=100000 pytest tests/faults/test_fuzzed_segments.py`; `RESMEM_SEED` is the
number of the first case. `.ci/sanitize` runs it as well.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CASES = int(os.environ.get("RESMEM_FUZZ", "600"))
FIRST = int(os.environ.get("RESMEM_SEED", "0"))


@pytest.mark.timeout(180 + CASES)
def test_files_that_were_changed_at_random_crash_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.faults.fuzzed_segment", tmp_path, FIRST, CASES]
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False
    )
    *before, last = done.stdout.splitlines() or [""]
    assert done.returncode == 0, f"after {last}:\n{done.stderr}"
    assert len(before) == CASES
    # Whatever the files were changed to, the cases reach every place where they are read.
    assert {
        "opened: CorruptFile",
        "searched: CorruptGraph",
        "searched: answered",
        "reordered: CorruptGraph",
    } <= json.loads(last).keys()
