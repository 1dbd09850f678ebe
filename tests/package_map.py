"""What imports what in the package, read from its source, and the map of it for CONTRIBUTING.

`python -m tests.package_map` prints the map; `tests/test_structure.py` holds it to what
CONTRIBUTING shows.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["ROOT", "arrows", "map_of_packages", "modules"]

NAME: Final = "resmem_service"
ROOT: Final = Path(__file__).parents[1] / "service" / NAME


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name below the package, `api.routes` for one."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def arrows() -> Iterator[tuple[str, str]]:
    """Every import of one module of the package by another: (importer, imported).

    An import under `if TYPE_CHECKING` or inside a function counts like any other.
    """
    known = modules()
    for importer, path in known.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or node.module is None:
                continue
            if node.module.split(".")[0] != NAME:
                continue
            base = node.module.removeprefix(NAME).lstrip(".")
            for alias in node.names:
                full = f"{base}.{alias.name}".lstrip(".")
                yield importer, full if full in known else base


def map_of_packages() -> str:
    """A line for each package and each module beside them, with how its docstring opens."""
    rows = []
    for name, path in modules().items():
        if name and (path.name == "__init__.py" or "." not in name):
            document = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            first = document.split("\n\n")[0].replace("\n", " ")
            where = name.replace(".", "/") + ("/" if path.name == "__init__.py" else ".py")
            rows.append(f"| `{where}` | {first} |")
    return "\n".join(["| room | what it is |", "|---|---|", *sorted(rows)]) + "\n"


if __name__ == "__main__":
    print(map_of_packages(), end="")  # noqa: T201 - the output of a command
