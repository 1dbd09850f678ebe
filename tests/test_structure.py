"""The rooms of the package, and the imports that there must never be."""

from pathlib import Path
from typing import Final

from tests.package_map import arrows, map_of_packages, modules

LEAVES: Final = {
    "array_file",
    "child_command",
    "coalesced",
    "durable",
    "errors",
    "excerpt",
    "extra",
    "printable",
    "reloaded",
    "resources",
    "runtime",
}
"""Modules that every room may import; they import nothing but each other."""

BELOW: Final[dict[str, set[str]]] = {
    "__main__": {"cli"},
    "cli": {
        "bundle", "fit", "inference", "load", "maintenance", "memory", "migrate", "place",
        "progress", "server", "settings", "telemetry",
    },
    "server": {"api", "app", "bundle", "settings", "telemetry"},
    "app": {
        "api", "assembly", "bundle", "footprint", "inference", "memory", "settings", "telemetry",
    },
    "assembly": {
        "api", "bundle", "footprint", "inference", "memory", "place", "settings", "telemetry",
    },
    "place": {"bundle", "memory", "settings"},
    "footprint": {"bundle", "memory"},
    "progress": {"telemetry"},
    "api": {"inference", "memory", "telemetry"},
    "load": {"inference"},
    "fit": {"bundle", "inference", "memory", "progress"},
    "migrate": {"bundle", "inference", "memory", "progress"},
    "maintenance": {"bundle", "inference", "memory", "progress"},
    "bundle": {"inference", "memory"},
    "inference": {"memory"},
    "memory": set(),
    "settings": set(),
    "telemetry": set(),
}  # fmt: skip
"""What each room may import beside the leaves: only what lies below it."""

MEMORY: Final[dict[str, set[str]]] = {
    "memory": {
        "follower",
        "journal",
        "observer",
        "options",
        "records",
        "rows",
        "search",
        "segments",
    },
    "segments": {"faults", "journal", "observer", "rows", "search"},
    "journal": {"fitted", "observer", "rows", "search"},
    "search": set(),
}
"""The same inside the memory: the search knows no journal, the journal no segment."""


def _room(module: str) -> str:
    return module.split(".")[0]


def test_imports_point_down_only() -> None:
    wrong = sorted(
        f"{importer} -> {imported}"
        for importer, imported in arrows()
        if _room(importer) != _room(imported)
        and imported
        and _room(imported) not in LEAVES
        and _room(imported) not in BELOW.get(_room(importer), set())
    )
    assert not wrong


def test_a_leaf_imports_nothing_but_leaves() -> None:
    wrong = [
        f"{importer} -> {imported}"
        for importer, imported in arrows()
        if importer in LEAVES and imported not in {"", *LEAVES}
    ]
    assert not wrong


def test_the_rooms_below_never_reach_up_again() -> None:
    """The table itself has no circle."""
    done: set[str] = set()
    while waiting := [room for room in BELOW if room not in done]:
        free = [room for room in waiting if BELOW[room] <= done]
        assert free, f"a circle among {waiting}"
        done.update(free)


def test_inside_the_memory_imports_point_down_only() -> None:
    wrong = []
    for importer, imported in arrows():
        a, b = importer.split("."), imported.split(".")
        inside = a[0] == b[0] == "memory" and len(a) > 2 and len(b) > 1 and a[1] != b[1]
        if inside and b[1] not in MEMORY[a[1]]:
            wrong.append(f"{importer} -> {imported}")
    assert not wrong


def test_every_room_is_on_the_map() -> None:
    contributing = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert map_of_packages() in contributing, "run `python -m tests.package_map`"


def test_every_package_and_module_says_what_it_is() -> None:
    silent = [
        name
        for name, path in modules().items()
        if not path.read_text(encoding="utf-8").lstrip("#! \n").startswith('"""')
    ]
    assert not silent
