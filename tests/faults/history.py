"""What the clients of the kill tests did, and what every memory must be as far as they were told.

A client owns its ids and sources and does one thing at a time. It says what it is about to do, does
it, and says that it was acknowledged: so after a kill every id is in a state that is known, but for
the one request of each client that was under way, of which all must have happened or nothing.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from threading import Lock
from typing import Final, Literal, Self

from resmem_service.memory import fitted

State = tuple[int, str]
"""Version and source of a memory; the version is its weight."""
States = dict[str, State]
FITTED: Final[State] = (1, fitted.SOURCE)
"""A memory of the bundle that nobody has forgotten or replaced."""
_NAMELESS: Final = "/nameless/"

Kind = Literal["begin", "done", "refused", "lost", "ready", "sealed", "compacted"]


def nameless_source(client: str, number: str) -> str:
    """A source for one request alone, whose memories get their ids from the server."""
    return f"{client}{_NAMELESS}{number}"


def is_nameless(source: str) -> bool:
    return _NAMELESS in source


@dataclass(frozen=True)
class Lesson:
    """A request to memorize: rows by name, or some rows without names."""

    source: str
    versions: dict[str, int] = field(default_factory=dict)
    """By id."""
    nameless: int = 0
    """How many rows have no id. Their versions count from 1, and nothing else has their source."""

    def rows(self) -> Iterator[tuple[str, State]]:
        """The id, empty where there is none, and the state that each row asks for."""
        for id, version in self.versions.items():
            yield id, (version, self.source)
        for number in range(self.nameless):
            yield "", (number + 1, self.source)


@dataclass(frozen=True)
class Line:
    """One line of what a client, or a process, says."""

    kind: Kind
    client: str = ""
    lesson: Lesson | None = None
    forget: str = ""
    forget_source: str = ""
    ids: list[str] = field(default_factory=list)
    """Of a lesson that is done."""
    found: States = field(default_factory=dict)
    """For a request without a reply: what the client then found of its memories."""

    def dump(self) -> bytes:
        return json.dumps({key: value for key, value in asdict(self).items() if value}).encode()

    @classmethod
    def load(cls, line: bytes) -> Self:
        content = json.loads(line)
        lesson = content.pop("lesson", None)
        found = {
            id: (version, source) for id, (version, source) in content.pop("found", {}).items()
        }
        return cls(**content, lesson=Lesson(**lesson) if lesson else None, found=found)


class History:
    """What every id must be; several threads may tell it."""

    def __init__(self, fitted_rows: int) -> None:
        self.states: States = dict.fromkeys(map(fitted.id_of, range(fitted_rows)), FITTED)
        self.acknowledged = 0
        self.lines: list[Line] = []
        """All that was told, in order."""
        self.touched: set[str] = set()
        """The ids of all that was asked for since this was cleared, whatever became of it."""
        self._under_way: dict[str, Line] = {}
        self._lock = Lock()

    def take(self, line: Line) -> None:
        with self._lock:
            self.lines.append(line)
            if line.kind == "begin":
                assert line.client not in self._under_way
                self._under_way[line.client] = line
                return
            if line.kind not in ("done", "refused", "lost"):
                return
            asked = self._under_way.pop(line.client)
            if line.kind == "done":
                self._apply(self._wanted(asked, line.ids))
                self.acknowledged += 1
            elif line.kind == "lost":
                self._conclude(asked, line.found)

    def settle(self, found: States) -> None:
        """Takes over what was found of the requests under way; the rest must be as it was told."""
        for asked in self._under_way.values():
            self._conclude(asked, found)
        self._under_way.clear()
        lost = {id: (s, found.get(id)) for id, s in self.states.items() if found.get(id) != s}
        assert not lost, f"acknowledged, and not so: {lost}"
        extra = {id: state for id, state in found.items() if id not in self.states}
        assert not extra, f"forgotten or never taught, and there: {extra}"

    def _conclude(self, asked: Line, found: States) -> None:
        """Nothing was heard of a request: all of it has happened, or nothing."""
        made: list[str] = []
        if asked.lesson is not None and asked.lesson.nameless:
            there = [(state, id) for id, state in found.items() if state[1] == asked.lesson.source]
            if not there:
                return
            made = [id for _, id in sorted(there)]
            assert len(made) == asked.lesson.nameless, f"half a request of {asked}: {there}"
        wanted = self._wanted(asked, made)
        changes = {id: new for id, new in wanted.items() if self.states.get(id) != new}
        happened = [found.get(id) == new for id, new in changes.items()]
        assert all(happened) or not any(happened), f"half a request of {asked.client}: {changes}"
        if all(happened):
            self._apply(changes)
        self.touched.update(wanted)

    def _wanted(self, asked: Line, made: list[str]) -> dict[str, State | None]:
        """What the ids of a request become; `made` are those that its nameless rows got."""
        if asked.lesson is not None:
            ids = made if asked.lesson.nameless else list(asked.lesson.versions)
            states = [state for _, state in asked.lesson.rows()]
            return dict(zip(ids, states, strict=True))
        if asked.forget:
            return {asked.forget: None}
        source = asked.forget_source
        return {id: None for id, (_, theirs) in self.states.items() if theirs == source}

    def _apply(self, changes: dict[str, State | None]) -> None:
        self.touched.update(changes)
        for id, state in changes.items():
            if state is None:
                self.states.pop(id, None)
            else:
                self.states[id] = state
