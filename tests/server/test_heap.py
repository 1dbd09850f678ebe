"""What was given back is gone from the process, whatever was taken after it."""

import os
import platform
import subprocess
import sys

import pytest

_CHILD = """
from pathlib import Path
from resmem_service.server.heap import give_memory_back

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

if {asked}:
    give_memory_back()
del (first := [bytearray(30_000_000)])[:]  # from now on such blocks would stay in the heap
before = resident()
large = bytearray(b"x") * 20_000_000
pins = [bytearray(100_000) for _ in range(3)]
del large
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these thresholds")
@pytest.mark.parametrize("asked", [True, False])
def test_a_large_block_goes_at_once(asked: bool) -> None:
    environment = {key: value for key, value in os.environ.items() if "MALLOC" not in key}
    left = subprocess.run(
        [sys.executable, "-c", _CHILD.format(asked=asked)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    if asked:
        assert int(left) < 5_000_000
    else:  # why it is asked for
        assert int(left) > 15_000_000
