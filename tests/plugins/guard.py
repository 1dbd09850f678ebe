"""The pytest plugin: limits for what pytest-timeout does not limit, and no process left over.

pytest-timeout ends a test that takes too long, but not what tears down a test that has failed (it
takes its timer away when the test fails), nor collection, nor code that no signal handler
interrupts. The last two are the watchdog's.
"""

import faulthandler
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import pytest

from tests.plugins.processes import MARK, command_of, kill, living, processes_of, wait_for_end
from tests.plugins.watchdog import Dog

__all__: list[str] = []

COLLECTION_S: Final = 300.0
TEARDOWN_S: Final = 60.0
GRACE_S: Final = 10.0
"""For a process that is told to end, or sees that its parent has."""
_MARGIN_S: Final = 30.0
END_S: Final = 60.0
"""From the end of the last test to the end of the interpreter."""
_ROOT: Final = Path(__file__).parents[2]
_GUARD: Final = pytest.StashKey["Guard"]()


class Guard:
    """What one process that runs tests knows of its limits and of its children.

    Args:
        dog: watches this process.
        mark: of its children.
        ignored: the watchdog itself.
    """

    def __init__(self, dog: Dog, mark: str, ignored: int) -> None:
        self.dog = dog
        self._mark = mark
        self._known = living() | {ignored}
        self._kept: set[int] = set()

    def keep(self) -> None:
        """What a test's fixtures have started is theirs: it may live as long as the module."""
        self._kept |= self._found().keys()

    def left_over(self, *, module_ends: bool) -> list[str]:
        """Ends what runs and should not any more; gives a line for each.

        Args:
            module_ends: no fixture is left that could need a process.
        """
        if module_ends:
            self._kept.clear()
        left = wait_for_end(self._unexpected(), GRACE_S)
        lines = [f"{process} {command_of(process)}" for process in left]
        kill(left)
        wait_for_end(left, GRACE_S)
        return lines

    def _unexpected(self) -> set[int]:
        """Those that neither a fixture nor something of a fixture has started."""
        found = self._found()
        allowed = set(self._kept)
        while more := {one for one, parent in found.items() if parent in allowed} - allowed:
            allowed |= more
        return found.keys() - allowed

    def _found(self) -> dict[int, int]:
        now = living()
        found = {}
        if candidates := now - self._known:
            found = processes_of(os.getpid(), self._mark, candidates)
        # The others are nothing to us, until they end and their ids are given to new ones.
        self._known = now - found.keys()
        return found


def pytest_configure(config: pytest.Config) -> None:
    """Starts the watchdog."""
    mark = f"{os.environ.get(MARK, '')}/{uuid.uuid4().hex}"
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    code = f"import sys; sys.path.insert(0, {str(_ROOT)!r}); import runpy; "
    code += "runpy.run_module('tests.plugins.watchdog', run_name='__main__', alter_sys=True)"
    # Not by `subprocess`, which would complain of a child that outlives its parent.
    process = os.posix_spawn(
        sys.executable,
        [sys.executable, "-S", "-E", "-c", code, str(os.getpid()), mark],
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, reading, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        ],
        setsid=True,
    )
    os.close(reading)
    os.environ[MARK] = mark
    config.stash[_GUARD] = Guard(Dog(writing), mark, process)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Limits what the modules of tests do when they are imported."""
    dog = session.config.stash[_GUARD].dog
    dog.allow(COLLECTION_S, "collection")
    result = yield
    dog.allow(0, "")
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Tells the watchdog how long a test may take if all goes wrong, its teardown included."""
    dog = item.config.stash[_GUARD].dog
    if limit := _limit_of(item):
        dog.allow(limit + TEARDOWN_S + _MARGIN_S, item.nodeid)
    result = yield
    dog.allow(0, "")
    return result


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """What runs before the body of a test belongs to its fixtures."""
    item.config.stash[_GUARD].keep()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Limits the teardown by itself, and looks for what it has left running."""
    settings = SimpleNamespace(
        timeout=TEARDOWN_S, method="signal", func_only=False, disable_debugger_detection=False
    )
    item.config.hook.pytest_timeout_cancel_timer(item=item)
    if _limit_of(item):
        item.config.hook.pytest_timeout_set_timer(item=item, settings=settings)
    try:
        return (yield)
    finally:
        item.config.hook.pytest_timeout_cancel_timer(item=item)
        ends = nextitem is None or nextitem.path != item.path
        if left := item.config.stash[_GUARD].left_over(module_ends=ends):
            pytest.fail("left running, and killed now:\n" + "\n".join(left), pytrace=False)


def pytest_enter_pdb(config: pytest.Config) -> None:
    """Somebody looks at a test: that takes as long as it takes."""
    config.stash[_GUARD].dog.allow(0, "")


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """From here on only the interpreter has to end."""
    if guard := config.stash.get(_GUARD, None):
        faulthandler.enable(sys.__stderr__ or 2)  # pytest has taken its own handler away
        guard.dog.allow(END_S, "the end of the interpreter")


def _limit_of(item: pytest.Item) -> float:
    """The seconds that pytest-timeout gives a test, 0 where there is no limit."""
    for given in (
        *(marker.args[0] for marker in item.iter_markers("timeout")),
        item.config.getoption("timeout"),
        os.environ.get("PYTEST_TIMEOUT"),
        item.config.getini("timeout"),
    ):
        if given not in (None, ""):
            return float(given)
    return 0.0
