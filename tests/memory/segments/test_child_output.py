import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from resmem_service.memory.segments.child_output import Ending, wait_for_end

PATIENCE_S = 60.0


@contextmanager
def started(code: str) -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(
        [sys.executable, "-c", f"import os, sys, time\n{code}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ending_of(code: str, seconds: float = PATIENCE_S) -> Ending:
    with started(code) as process:
        return wait_for_end(process, seconds)


def test_short_outputs_are_kept_whole() -> None:
    assert ending_of("print('out'); print('err', file=sys.stderr); sys.exit(3)") == Ending(
        3, "out\n", "err\n", timed_out=False
    )


def test_long_errors_before_the_output_ends_do_not_block_and_are_not_all_kept() -> None:
    code = "sys.stderr.write('e' * 10_000_000 + 'the reason\\n'); print('o' * 1_000_000 + ' 7')"
    ending = ending_of(code)
    assert ending.status == 0
    assert ending.errors.endswith("the reason\n")
    assert ending.output.endswith("o 7\n")
    assert len(ending.errors) == len(ending.output) == 8192


def test_half_a_character_at_the_cut_is_no_error() -> None:
    assert len(ending_of("sys.stdout.buffer.write('é'.encode() * 4096 + b'a')").output) == 4097


def test_a_process_that_hangs_is_ended() -> None:
    for silence in ("", "os.close(1); os.close(2); "):
        ending = ending_of(f"{silence}time.sleep(600)", seconds=0.5)
        assert ending.timed_out
        assert ending.status == -signal.SIGKILL


def test_a_stopped_process_can_be_ended() -> None:
    with started("print('up', flush=True); time.sleep(600)") as process:
        process.send_signal(signal.SIGSTOP)
        assert wait_for_end(process, 0.5).status == -signal.SIGKILL


def test_a_grandchild_that_holds_the_pipes_is_not_waited_for() -> None:
    # It ends with its standard input, which this test holds.
    code = "if os.fork() == 0:\n    sys.stdin.read()\nelse:\n    print('done')"
    with started(code) as process:
        ending = wait_for_end(process, PATIENCE_S)
    assert ending == Ending(0, "done\n", "", timed_out=False)
