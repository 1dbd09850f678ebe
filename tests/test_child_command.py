"""Children run this package's code, whatever lies in the folder where they are started."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import resmem_service
from resmem_service.child_command import module_command, without_current_folder

from tests.hostile_folder import fill_with_traps

ROOT = Path(resmem_service.__file__).parents[1]
REPORT = """
import json, sys
import queue, random, resmem_service
json.dump([resmem_service.__file__, queue.__file__, __name__, sys.argv[1:], sys.path], sys.stdout)
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Another package with the same file, which tells what was loaded for it."""
    folder = tmp_path / "elsewhere/resmem_service"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "report.py").write_text(REPORT)
    source = Path(resmem_service.__file__).with_name("child_command.py")
    (folder / "child_command.py").write_text(source.read_text())
    return folder


def test_the_package_is_the_one_around_the_file(package: Path, tmp_path: Path) -> None:
    """Not that of the current folder, nor one that is installed."""
    here = tmp_path / "here"
    fill_with_traps(here)
    for root in ("", str(package.parent)):
        command = [sys.executable, "-P", str(package / "child_command.py"), root]
        done = subprocess.run(
            [*command, "resmem_service.report", "a", "b"], cwd=here, capture_output=True, check=True
        )
        file, queue, name, arguments, path = json.loads(done.stdout)
        assert file == str(package / "__init__.py")
        assert queue == sys.modules["queue"].__file__
        assert name == "__main__"
        assert arguments == ["a", "b"]
        assert str(here) not in path
        assert "" not in path
        # Beside the package may lie what it needs, but nothing that comes before Python's own.
        assert path.count(str(package.parent)) == bool(root)
        assert not root or path[-1] == root


def test_the_command_runs_a_module_of_this_package(tmp_path: Path) -> None:
    fill_with_traps(tmp_path)
    command = module_command("resmem_service", "--version")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"resmem {resmem_service.__version__}\n"
    assert not done.stderr


def test_isolation_is_handed_on() -> None:
    code = (
        "from resmem_service.child_command import module_command; print(*module_command('m')[1:-3])"
    )
    for flags, expected in ((["-I"], "-I"), (["-E", "-s"], "-P -E -s"), ([], "-P")):
        done = subprocess.run(
            [sys.executable, *flags, "-c", code],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            env={key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"},
        )
        assert done.stdout.strip() == expected


@pytest.mark.parametrize(
    ("folder", "path", "expected"),
    [
        ("HERE", ["HERE", "/usr/lib"], ["/usr/lib"]),
        ("HERE", ["/venv/bin", "/usr/lib"], ["/venv/bin", "/usr/lib"]),
        ("HERE", ["/usr/lib", "HERE"], ["/usr/lib", "HERE"]),
        (str(ROOT), [str(ROOT), "/usr/lib"], ["/usr/lib", str(ROOT)]),
    ],
)
def test_the_current_folder_leaves_the_path(
    folder: str,
    path: list[str],
    expected: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = str(tmp_path)
    monkeypatch.chdir(folder.replace("HERE", here))
    found = without_current_folder([one.replace("HERE", here) for one in path])
    assert found == [one.replace("HERE", here) for one in expected]


def test_a_folder_that_was_removed_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert without_current_folder(["", "/usr/lib"]) == ["", "/usr/lib"]


def test_the_module_form_takes_nothing_from_the_folder_but_the_package(tmp_path: Path) -> None:
    """`python -m resmem_service` looks for `resmem_service` there first, and for nothing else."""
    fill_with_traps(tmp_path, package=False)
    done = subprocess.run(
        [sys.executable, "-m", "resmem_service", "--version"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"resmem {resmem_service.__version__}\n", done.stderr
    assert not list(tmp_path.glob("*.sprung"))
