"""The pytest plugin that finds tests which change the process that all tests share.

What is compared before a test and after it belongs to the whole process: a test that changes it
and does not put it back changes what the tests after it see, or, as with a limit for the size of
files, what pytest itself can do. It is put back, and the test is an error.
"""

import gc
import locale
import logging
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

__all__: list[str] = []

_LIMITS: Final = {
    name: getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")
}
_SIGNALS: Final = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGALRM})
"""Without SIGALRM, which pytest-timeout uses."""
_OF_PYTEST: Final = "PYTEST_CURRENT_TEST"
_BEFORE: Final = pytest.StashKey[list[object]]()
_THRESHOLDS: Final = pytest.StashKey[tuple[int, int, int]]()


@dataclass(frozen=True)
class _Part:
    """One part of the state of the process: how it is read, and how it is put back."""

    name: str
    read: Callable[[], Any]
    put_back: Callable[[Any], object]


def _umask() -> int:
    os.umask(mask := os.umask(0o077))
    return mask


def _put_back_limits(limits: dict[str, tuple[int, int]]) -> None:
    for name, (soft, _) in limits.items():
        _, hard = resource.getrlimit(_LIMITS[name])
        resource.setrlimit(_LIMITS[name], (soft, hard))


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != _OF_PYTEST}


def _put_back_environment(environment: dict[str, str]) -> None:
    for name in os.environ.keys() - environment.keys() - {_OF_PYTEST}:
        del os.environ[name]
    os.environ.update(environment)


def _put_back_handlers(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        if handler is not None and signal.getsignal(number) != handler:
            signal.signal(number, handler)


def _loggers() -> tuple[int, int, list[logging.Handler]]:
    root = logging.getLogger()
    return root.level, logging.root.manager.disable, list(root.handlers)


def _put_back_loggers(loggers: tuple[int, int, list[logging.Handler]]) -> None:
    root = logging.getLogger()
    root.level, logging.root.manager.disable, root.handlers[:] = loggers


def _put_back_path(path: list[str]) -> None:
    sys.path[:] = path


_PARTS: Final = [
    _Part("current folder", Path.cwd, os.chdir),
    _Part("umask", _umask, os.umask),
    _Part(
        "resource limits",
        lambda: {name: resource.getrlimit(number) for name, number in _LIMITS.items()},
        _put_back_limits,
    ),
    _Part("environment", _environment, _put_back_environment),
    _Part(
        "signal handlers",
        lambda: {number: signal.getsignal(number) for number in _SIGNALS},
        _put_back_handlers,
    ),
    _Part(
        "locale",
        lambda: locale.setlocale(locale.LC_ALL),
        lambda name: locale.setlocale(locale.LC_ALL, name),
    ),
    _Part("switch interval", sys.getswitchinterval, sys.setswitchinterval),
    _Part("garbage collector", gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
    _Part("logging", _loggers, _put_back_loggers),
    _Part("sys.path", lambda: list(sys.path), _put_back_path),
    _Part("sys.executable", lambda: sys.executable, lambda path: setattr(sys, "executable", path)),
    _Part(
        "folder for temporary files",
        lambda: tempfile.tempdir,
        lambda path: setattr(tempfile, "tempdir", path),
    ),
    _Part("time zone", lambda: time.tzname, lambda _: time.tzset()),
]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Reads all of it before the first fixture."""
    before: list[object] = [part.read() for part in _PARTS]
    item.stash[_BEFORE] = before
    item.stash[_THRESHOLDS] = gc.get_threshold()
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Compares after the last fixture."""
    try:
        return (yield)
    finally:
        # An app that starts sets these, as it should: that is no mistake of the test.
        gc.set_threshold(*item.stash[_THRESHOLDS])
        gc.unfreeze()
        changed: list[str] = []
        known = item.stash[_BEFORE]
        for part, before in zip(_PARTS, known, strict=True):
            after = part.read()
            if after != before:
                changed.append(f"{part.name}: {before!r} became {after!r}")
                part.put_back(before)
        if changed:
            pytest.fail("changed for all that follows:\n" + "\n".join(changed), pytrace=False)
