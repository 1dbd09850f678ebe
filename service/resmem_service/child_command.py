"""The command line of a child process that runs a module of this package.

`python -m` puts the current folder in front of the path of imports: a `service.py`, `service/` or
`queue.py` that lies there would run in the place of ours. A child is therefore started with this
file as its script and with `-P`. It loads the package from the folder that the parent loaded it
from, whatever else has its name, and everything else from the interpreter's own path.

Imports nothing of the package, which is not loaded yet where this file runs as a script.
"""

import runpy
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Final

__all__ = ["module_command", "without_current_folder"]

_PACKAGE: Final = Path(__file__).absolute().parent


def module_command(module: str, *arguments: str) -> list[str]:
    """The arguments of a process that runs `module`, by its full name, as `python -m` would.

    The child has this interpreter, its flags about isolation, and the environment that the caller
    gives it.
    """
    if sys.flags.isolated:
        flags = ["-I"]
    else:
        flags = ["-P"]
        flags += ["-E"] if sys.flags.ignore_environment else []
        flags += ["-s"] if sys.flags.no_user_site else []
    # Where the dependencies lie beside the package (`pip install --target`), the child needs both.
    root = str(_PACKAGE.parent) if str(_PACKAGE.parent) in sys.path else ""
    return [sys.executable, *flags, str(Path(__file__).absolute()), root, module, *arguments]


def without_current_folder(path: list[str]) -> list[str]:
    """The path of imports for a process that `python -m` has started.

    The current folder, which Python puts first, goes; where the package itself lies in it, it
    stays, behind everything else.
    """
    try:
        current = str(Path.cwd())
    except FileNotFoundError:  # it was removed, and so cannot be on the path
        return path
    if path[:1] != [current]:
        return path
    return [*path[1:], current] if current == str(_PACKAGE.parent) else path[1:]


def _run(root: str, module: str, arguments: list[str]) -> None:
    """Runs a module of the package that lies around this file, as `__main__`."""
    if root and root not in sys.path:
        sys.path.append(root)
    place = str(_PACKAGE)
    spec = spec_from_file_location(
        _PACKAGE.name, _PACKAGE / "__init__.py", submodule_search_locations=[place]
    )
    assert spec is not None
    assert spec.loader is not None
    package = module_from_spec(spec)
    sys.modules[_PACKAGE.name] = package
    spec.loader.exec_module(package)
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _run(sys.argv[1], sys.argv[2], sys.argv[3:])
