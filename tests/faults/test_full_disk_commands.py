"""The commands that look after a state, on a full disk: they say so, and nothing is harmed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from resmem_service.cli import main

from tests.conftest import FittedModel
from tests.end_to_end.server import Server
from tests.faults.test_unwritable_state import fill, tmpfs
from tests.maintenance.examples import Taught, listing, teach


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with tmpfs(tmp_path / "disk", "8m") as disk:
        yield disk


@pytest.fixture
def taught(digits: FittedModel, disk: Path) -> Taught:
    """On that disk: 148 memories in two segments, from each of which one was forgotten."""
    return teach(digits, disk / "states")


def fill_but(disk: Path, left: int) -> Path:
    ballast = fill(disk)
    with ballast.open("rb+") as file:
        file.truncate(ballast.stat().st_size - left)
    return ballast


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("left", [0, 2 * 4096, 8 * 4096])
def test_compact_beside_a_server(
    taught: Taught, disk: Path, left: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The files of the old segments stay until the new ones are whole."""
    with Server(taught.model.store, disk / "states") as server:
        row = taught.model.inputs[5].tolist()
        before = server.predict(row, neighbours=3)
        ballast = fill_but(disk, left)
        assert main(["compact", *taught.options()]) == 2
        trouble = capsys.readouterr().err
        assert trouble.startswith("resmem: error: ")
        assert "Traceback" not in trouble
        assert server.predict(row, neighbours=3) == before
        assert main(["verify", *taught.options()]) == 0
        ballast.unlink()
        assert main(["compact", *taught.options()]) == 0
        assert capsys.readouterr().out.splitlines()[-2].startswith("removed ")
        assert server.predict(row, neighbours=3) == before
        assert server.client.get("/memories/digit-5").status_code == 404
    needle = taught.model.inputs[5].tobytes()
    for path in taught.folders.root.rglob("*"):
        assert path.is_dir() or needle not in path.read_bytes(), path


def test_what_would_write_leaves_nothing_behind(
    taught: Taught, disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = disk / "saved"
    assert main(["backup", *taught.options(), "--to", str(saved)]) == 0
    state, there = listing(taught.folders.root), names(disk)
    ballast = fill(disk)
    target = str(disk / "another")
    for command, named in (
        (["backup", "--to", target], target),
        (["backup", "--to", target, "--link"], target),
        (["export", "--to", f"{target}.jsonl"], target),
        (["export", "--to", f"{target}.parquet"], target),
        (["restore", "--from", str(saved), "--force"], str(taught.folders.root)),
    ):
        capsys.readouterr()
        assert main([command[0], *taught.options(), *command[1:]]) == 2, command
        trouble = capsys.readouterr().err
        # Not the journal that is read, which may lie on another disk.
        assert named in trouble.replace(".another", "another")
        assert "No space left on device" in trouble or "disk is full" in trouble
        assert names(disk) == sorted([*there, "ballast"])
        assert names(disk / "states/digits") == ["1"]
        assert listing(taught.folders.root) == state
    ballast.unlink()
    assert main(["verify", *taught.options(), "--backup", str(saved)]) == 0
    assert main(["restore", *taught.options(), "--from", str(saved), "--force"]) == 0
    assert main(["verify", *taught.options()]) == 0


@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_what_only_reads_needs_no_space(taught: Taught, disk: Path, command: str) -> None:
    """Nobody serves the state: not even the index of the journal's log is there."""
    state = listing(taught.folders.root)
    fill(disk)
    assert main([command, *taught.options()]) == 0
    assert listing(taught.folders.root) == state
