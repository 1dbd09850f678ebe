"""A folder with modules that bear the names of ours and of Python's own."""

from pathlib import Path

_MODULES = (
    *("queue", "random", "json", "logging", "socket"),
    *("numpy", "uvicorn", "orjson", "tempfile", "service"),
)
_TRAP = """
import os
with open(os.path.join(os.path.dirname(__file__), "{name}.sprung"), "w"):
    pass
raise ImportError("a module of the current folder was imported")
"""


def fill_with_traps(folder: Path, *, package: bool = True) -> None:
    """Every other one a package; whatever is imported leaves `NAME.sprung` beside it."""
    folder.mkdir(exist_ok=True)
    names = (*_MODULES, "resmem_service") if package else _MODULES
    for number, name in enumerate(names):
        if number % 2:
            (folder / f"{name}.py").write_text(_TRAP.format(name=name))
        else:
            (folder / name).mkdir()
            (folder / name / "__init__.py").write_text(_TRAP.format(name=f"../{name}"))
