"""deploy/venv.sh against machines that lack something, made of a PATH with stand-ins on it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Answers the questions that venv.sh asks an interpreter, and writes down what pip is asked for.
PYTHON = """#!/bin/sh
case "$*" in
    *"version_info[:2]"*) echo {version} ;;
    *"sys.exit(sys.version_info"*) exit {old} ;;
    *ensurepip*) exit {no_venv} ;;
    *get_path*) echo {include} ;;
    *--version*) echo Python {version} ;;
    "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
    *) echo "$*" >>{log} ;;
esac
"""
COMPILER = "#!/bin/sh\nexec cat >/dev/null\n"


class Machine:
    """A PATH with a few tools, and what the script said and did there."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.log = folder / "pip.log"
        self.venv = folder / "venv"
        self.include = folder / "include"
        self.include.mkdir()
        (self.include / "Python.h").touch()
        for tool in ("sh", "cat", "cp", "date", "mkdir", "rm"):
            found = shutil.which(tool)
            assert found
            (self.bin / tool).symlink_to(found)

    def add(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def add_python(
        self,
        name: str,
        version: str,
        *,
        old: bool = False,
        venv: bool = True,
        include: Path | None = None,
    ) -> None:
        text = PYTHON.format(
            version=version,
            old=int(old),
            no_venv=int(not venv),
            include=include or self.include,
            log=self.log,
        )
        self.add(name, text)

    def run(self, root: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["sh", str(root / "deploy/venv.sh"), "cpu"],
            env={"PATH": str(self.bin), "VENV": str(self.venv), **environment},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.add("g++", COMPILER)
    return made


def test_installs_what_was_asked_for_and_nothing_more(machine: Machine, root: Path) -> None:
    machine.add_python("python3", "3.11")
    done = machine.run(root)
    assert done.returncode == 0, done.stderr
    installs = [line for line in machine.log.read_text().splitlines() if "install" in line]
    assert len(installs) == 1
    assert installs[0].endswith("--editable .[cpu]")
    assert "installing" in done.stdout


def test_no_compiler_names_the_package_before_pip_runs(machine: Machine, root: Path) -> None:
    machine.add_python("python3", "3.11")
    (machine.bin / "g++").unlink()
    done = machine.run(root)
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == "error: no C++ compiler"
    assert "apt install g++" in done.stderr
    assert "gcc-c++" in done.stderr
    assert not machine.venv.exists()


def test_compiler_without_its_library_is_no_compiler(machine: Machine, root: Path) -> None:
    machine.add_python("python3", "3.11")
    machine.add("g++", "#!/bin/sh\nexit 1\n")
    done = machine.run(root)
    assert done.returncode != 0
    assert "g++ compiles no C++" in done.stderr


def test_no_headers_names_the_package(machine: Machine, root: Path, tmp_path: Path) -> None:
    machine.add_python("python3", "3.11", include=tmp_path / "nowhere")
    done = machine.run(root)
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == "error: python3 has no Python.h"
    assert "python3-dev " in done.stderr
    assert "python3-devel" in done.stderr
    assert not machine.venv.exists()


def test_all_that_is_missing_is_named_at_once(machine: Machine, root: Path, tmp_path: Path) -> None:
    (machine.bin / "g++").unlink()
    machine.add_python("python3", "3.11", venv=False, include=tmp_path / "nowhere")
    line = machine.run(root).stderr.splitlines()[0]
    assert line == (
        "error: no C++ compiler; python3 makes no virtual environments and has no Python.h"
    )


def test_complete_python_is_taken_before_one_without_headers(
    machine: Machine, root: Path, tmp_path: Path
) -> None:
    machine.add_python("python3", "3.11", include=tmp_path / "nowhere")
    machine.add_python("python3.13", "3.13")
    done = machine.run(root)
    assert done.returncode == 0, done.stderr
    assert "Python 3.13" in done.stdout


def test_old_python_is_passed_over_for_a_newer_one(machine: Machine, root: Path) -> None:
    machine.add_python("python3", "3.9", old=True)
    machine.add_python("python3.12", "3.12")
    done = machine.run(root)
    assert done.returncode == 0, done.stderr
    assert "Python 3.12" in done.stdout


def test_old_python_alone_is_named_with_its_version(machine: Machine, root: Path) -> None:
    machine.add_python("python3", "3.9", old=True)
    done = machine.run(root)
    assert done.returncode != 0
    assert "python3 is Python 3.9, not 3.11 or newer" in done.stderr


def test_named_python_is_taken_or_refused_never_replaced(machine: Machine, root: Path) -> None:
    machine.add_python("python3", "3.11")
    machine.add_python("old", "3.8", old=True)
    assert "old is Python 3.8" in machine.run(root, PYTHON="old").stderr
    assert "no other on PATH" in machine.run(root, PYTHON="other").stderr


def test_folder_that_is_no_environment_keeps_its_files(machine: Machine, root: Path) -> None:
    machine.add_python("python3", "3.11")
    machine.venv.mkdir()
    kept = machine.venv / "letter.txt"
    kept.write_text("dear")
    assert machine.run(root).returncode == 0
    assert kept.read_text() == "dear"


def test_this_machine_will_do(machine: Machine, root: Path) -> None:
    """The questions make sense to a real interpreter and compiler; only pip is left out."""
    text = f'#!/bin/sh\ncase "$*" in *venv?*) exit 7;; esac\nexec {sys.executable} "$@"\n'
    machine.add("python3", text)
    path = f"{machine.bin}:{os.environ['PATH']}"
    done = machine.run(root, PATH=path, PYTHON=str(machine.bin / "python3"))
    assert done.returncode == 7, done.stderr
    assert done.stdout.startswith("making ")
