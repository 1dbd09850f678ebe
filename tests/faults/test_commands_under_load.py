"""`resmem verify`, `backup`, `export` and `inspect` beside a server at work: of one moment each."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import pytest
from resmem_service.cli import main

from tests.conftest import FittedModel
from tests.end_to_end.server import Server
from tests.faults.client import state_of
from tests.faults.digits import FITTED_ROWS
from tests.faults.history import FITTED, History, Line, States
from tests.faults.place import Place
from tests.faults.server_load import CLIENTS
from tests.server.test_supervisor import until


@dataclass(frozen=True)
class Reading:
    """What a command wrote, and how much the clients had said when it began and when it ended."""

    file: Path
    began: int
    ended: int


def read(command: str, place: Place, file: Path, lines: list[Line]) -> Reading:
    began = len(lines)
    assert main([command, *place.options(), "--to", str(file)]) == 0
    return Reading(file, began, len(lines))


def check(states: States, reading: Reading, lines: list[Line], *, bundled: bool) -> None:
    """The memories of each client are what they were at one moment while the command ran."""
    for number in range(CLIENTS):
        possible = (of_client(moment, number) for moment in moments(lines, number, reading))
        found = of_client(states, number)
        assert found in (possible if bundled else map(online, possible)), f"client {number}"


def moments(lines: list[Line], number: int, reading: Reading) -> list[States]:
    """All that can have been, as far as one client tells."""
    history = History(FITTED_ROWS)
    passed = [dict(history.states)]
    for at, line in enumerate(lines):
        if line.client != f"c{number}":
            continue
        if line.kind == "begin" and at >= reading.ended:
            break
        history.take(line)
        if line.kind == "done":
            passed = [*(passed if at >= reading.began else []), dict(history.states)]
    return passed


def of_client(states: States, number: int) -> States:
    """Those that only this client touches."""
    return {
        id: state
        for id, state in states.items()
        if state[1].startswith(f"c{number}/")
        or (state == FITTED and int(id.removeprefix("fit-")) % CLIENTS == number)
    }


def online(states: States) -> States:
    return {id: state for id, state in states.items() if state != FITTED}


def exported(file: Path) -> States:
    memories = map(json.loads, file.read_text().splitlines())
    return {memory["id"]: state_of(memory["weight"], memory["source"]) for memory in memories}


def newest_segment(place: Place) -> int:
    """The number of the last segment that was built; how many there are at once is chance."""
    built = place.states.glob("digits/*/segments/[0-9]*")
    return max((int(path.name) for path in built), default=0)


def test_each_sees_one_moment(
    digits: FittedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "httpx")  # a line for each request, kept until the end
    place = Place(digits, tmp_path)
    lines = place.history.lines
    with place.server() as server:
        with place.load(server, seed=1):
            until(lambda: newest_segment(place) >= 3, "third segment built")
            backup = read("backup", place, tmp_path / "backup", lines)
            assert main(["verify", *place.options()]) == 0
            assert main(["inspect", *place.options()]) == 0
            export = read("export", place, tmp_path / "memories.jsonl", lines)
        place.check(server)
    check(exported(export.file), export, lines, bundled=False)
    elsewhere = place.options(tmp_path / "elsewhere")
    assert main(["restore", *elsewhere, "--from", str(backup.file)]) == 0
    assert main(["verify", *elsewhere]) == 0
    with Server(place.store, tmp_path / "elsewhere") as restored:
        check(place.states_in(restored), backup, lines, bundled=True)
