"""Large blocks go back to the operating system; in a process of its own, which stays changed."""

import subprocess
import sys

_SCRIPT = """
import os, threading
from service.server.allocator import return_large_blocks

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def fill():
    blocks = [bytearray(size * 2**16) for size in range(1, 200)]
    small = [bytearray(1000) for _ in range(1000)]
    del blocks
    return small

if {active}:
    assert return_large_blocks()
before = resident()
kept = []
threads = [threading.Thread(target=lambda: kept.append(fill())) for _ in range(4)]
for _ in range(3):
    kept.append(fill())
for thread in threads:
    thread.start()
    thread.join()
print((resident() - before) // 2**20)
"""


def kept_mib(active: bool) -> int:
    script = _SCRIPT.replace("{active}", str(active))
    command = [sys.executable, "-c", script]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_large_blocks_are_returned() -> None:
    assert kept_mib(active=True) < 200  # 3,800 without
