"""The pytest plugin that keeps the shell from which the tests are run out of them.

Settings of a server that a developer has exported, what `make` hands to its children, and proxies,
through which a request to this machine itself must not go.
"""

import os
from typing import Final

import pytest

__all__: list[str] = []

_OF_THE_TESTS: Final = {
    "RESMEM_KILLS", "RESMEM_SEED", "RESMEM_FLIPS", "RESMEM_FUZZ", "RESMEM_FASHION_MNIST",
}  # fmt: skip
"""Those that are meant for the tests themselves."""
_OF_MAKE: Final = {"ARGS", "PYTHON", "VENV", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"}
_HERE: Final = "127.0.0.1,localhost,::1"


@pytest.hookimpl(tryfirst=True)
def pytest_configure() -> None:
    """Before any module of tests is imported, and any process is started."""
    for name in list(os.environ):
        if (name.startswith("RESMEM_") and name not in _OF_THE_TESTS) or name in _OF_MAKE:
            del os.environ[name]
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name, ""), _HERE]))
