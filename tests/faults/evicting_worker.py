"""Memorizes until it is killed: `python -m tests.faults.evicting_worker STATE NAME FIRST BOUND`.

It memorizes the rows `NAME-FIRST` and so on for ever, some at a time, and says for each commit the
number of the next row, and the Unix time before it.
"""

import json
import os
import random
import sys
import time
from pathlib import Path
from threading import Thread

import numpy as np
from resmem_service.memory.journal.journal import Memories
from resmem_service.memory.journal.retention import Retention
from resmem_service.memory.memory import ResidualMemory
from resmem_service.memory.options import MemoryOptions

from tests.faults.digits import SHAPE
from tests.faults.worker import end_with_parent


def rows(name: str, numbers: range) -> Memories:
    count = len(numbers)
    noise = np.random.default_rng(numbers.start).normal(size=(count, 64))
    return Memories(
        ids=[f"{name}-{number}" for number in numbers],
        inputs=[b""] * count,
        targets=np.zeros(count, np.int32),
        embeddings=noise.astype(np.float32),
        residuals=np.zeros((count, 10), np.float32),
        weights=np.ones(count),
        source=name,
    )


def main(state: str, name: str, first: str, retention: str) -> None:
    Thread(target=end_with_parent, daemon=True).start()
    bound = Retention(**json.loads(retention))
    options = MemoryOptions(growing_bytes=1, retention=bound)
    memory = ResidualMemory.open(Path(state), fitted=None, shape=SHAPE, options=options)
    start = int(first)
    while True:
        end = start + random.randint(1, 40)
        began = time.time()
        memory.append(rows(name, range(start, end))).result(60)
        os.write(sys.stdout.fileno(), f"{end} {began}\n".encode())
        start = end
        time.sleep(0.005)


if __name__ == "__main__":
    main(*sys.argv[1:])
