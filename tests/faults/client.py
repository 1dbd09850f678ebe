"""A client of the kill tests: does one thing after the other to memories that are its own."""

import random
import time
from collections.abc import Callable, Collection
from threading import Event
from typing import Final, Protocol

from resmem_service.memory import fitted

from tests.faults.history import Lesson, Line, State, States, is_nameless, nameless_source

_SOURCES: Final = 4
_MOST_ROWS: Final = 20
_MANY_ROWS: Final = 120
_LONGEST_PAUSE_S: Final = 0.02
_FULL: Final = 200
"""Memories of a client beyond which it forgets more than it teaches."""


class Refused(Exception):
    """Nothing was done, and the client was told so."""


class Lost(Exception):
    """No reply came: it may have been done or not."""


class Gone(Exception):
    """There is nobody any more who could be asked."""


class Teachable(Protocol):
    """Whom a client teaches: the memory itself, or a server.

    Every call may raise Refused, Lost or Gone.
    """

    def memorize(self, lesson: Lesson) -> list[str]:
        """Teaches; gives the ids."""

    def forget(self, id: str) -> None: ...

    def forget_source(self, source: str) -> None: ...

    def find(self, ids: Collection[str], source: str) -> States:
        """What there is of these ids, and all there is of a source if it is not empty.

        Raises:
            Gone: nobody says.
        """


class Client:
    """Memorizes, replaces, repeats and forgets.

    Args:
        teachable: whom it teaches.
        tell: told of all that it does, before and after.
        name: begins all its ids and sources.
        seed: of what it does; a new one for each life, for it makes its ids as well.
        known: all memories added online that there are.
        bundled: memories of the bundle that no other client touches.
    """

    def __init__(
        self,
        teachable: Teachable,
        tell: Callable[[Line], None],
        name: str,
        seed: int,
        known: States,
        bundled: range,
    ) -> None:
        self._teachable = teachable
        self._tell = tell
        self._name = name
        self._random = random.Random(f"{name}{seed}")
        self._sources = [f"{name}/{number}" for number in range(_SOURCES)]
        self._made = f"{name}-{seed}-"
        self._count = 0
        self._bundled = bundled
        self._mine = self._own(known)

    def run(self, over: Event) -> None:
        """Until told to stop, or there is nobody to teach any more."""
        while not over.is_set():
            try:
                self._one()
            except Gone:
                return
            time.sleep(self._random.random() * _LONGEST_PAUSE_S)

    def _one(self) -> None:
        full = len(self._mine) > _FULL
        chance = self._random.random()
        if chance < (0.25 if full else 0.65) or not self._mine:
            self._memorize(self._lesson())
        elif chance < (0.3 if full else 0.7):
            self._count += 1
            source = nameless_source(self._name, f"{self._made}{self._count}")
            self._memorize(Lesson(source, nameless=self._random.randint(1, _MOST_ROWS)))
        elif chance < (0.9 if full else 0.97):
            self._forget()
        else:
            self._forget_source()

    def _lesson(self) -> Lesson:
        """New ids and old ones, some of which are repeated as they are."""
        source = self._random.choice(self._sources)
        named = {id: s for id, s in self._mine.items() if not is_nameless(s[1])}
        most = _MANY_ROWS if self._random.random() < 0.05 else _MOST_ROWS
        versions: dict[str, int] = {}
        for _ in range(self._random.choice((1, self._random.randint(1, most)))):
            chance = self._random.random()
            if chance < 0.7 or not named:
                self._count += 1
                versions[f"{self._made}{self._count}"] = 1
            elif chance < 0.98:
                id = self._random.choice(list(named))
                version, old_source = named[id]
                # The same version again is the same content only under the same source.
                repeat = chance < 0.8 and old_source == source
                versions[id] = version + (0 if repeat else 1)
            else:
                versions[self._bundled_id()] = 1 + self._random.randrange(10**6)
        return Lesson(source, versions)

    def _memorize(self, lesson: Lesson) -> None:
        line = Line("begin", self._name, lesson=lesson)
        ids = self._do(
            line, lambda: self._teachable.memorize(lesson), list(lesson.versions), lesson.source
        )
        states = [state for _, state in lesson.rows()]
        if ids is not None:
            self._mine.update(zip(ids, states, strict=True))

    def _forget(self) -> None:
        id = self._random.choice(list(self._mine))
        if self._random.random() < 0.1:
            id = self._bundled_id()
        line = Line("begin", self._name, forget=id)
        if self._do(line, lambda: self._teachable.forget(id), [id]) is not None:
            self._mine.pop(id, None)

    def _forget_source(self) -> None:
        source = self._random.choice([source for _, source in self._mine.values()])
        gone = [id for id, state in self._mine.items() if state[1] == source]
        line = Line("begin", self._name, forget_source=source)
        if self._do(line, lambda: self._teachable.forget_source(source), gone) is not None:
            for id in gone:
                del self._mine[id]

    def _do(
        self,
        line: Line,
        act: Callable[[], list[str] | None],
        ids: Collection[str],
        source: str = "",
    ) -> list[str] | None:
        """Does one thing to `ids` and to what gets `source`; gives ids, None where it was not done.

        Where no reply comes it looks what there is now: all of it must be, or nothing.
        """
        self._tell(line)
        try:
            done = act() or []
        except Refused:
            self._tell(Line("refused", self._name))
            return None
        except Lost:
            nameless = source if is_nameless(source) else ""
            found = self._teachable.find(ids, nameless)
            self._tell(Line("lost", self._name, found=found))
            for id in ids:
                self._mine.pop(id, None)
            self._mine.update(self._own(found))
            return None
        self._tell(Line("done", self._name, ids=done))
        return done

    def _own(self, states: States) -> States:
        return {id: s for id, s in states.items() if s[1].startswith(f"{self._name}/")}

    def _bundled_id(self) -> str:
        return fitted.id_of(self._random.choice(self._bundled))


def share(number: int, clients: int, rows: int) -> range:
    """The memories of the bundle that one of several clients may touch."""
    return range(number, rows, clients)


def state_of(weight: float, source: str | None) -> State:
    """The state that a record tells."""
    return int(weight), source or ""
