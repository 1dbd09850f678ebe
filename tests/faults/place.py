"""A state under test: what serves it, what loads it, and what it must hold."""

import shutil
from contextlib import closing
from pathlib import Path
from typing import Final

import httpx
from resmem_service.bundle.store import ModelStore
from resmem_service.memory import fitted

from tests.conftest import FittedModel
from tests.end_to_end.server import Server
from tests.faults.digits import FITTED_ROWS, Digits
from tests.faults.history import History, States
from tests.faults.served_memory import ServedMemory
from tests.faults.server_load import ServerLoad
from tests.memory.examples import LABELS, PIXELS
from tests.server.everyone import ask_everyone

FLAGS: Final = ("--growing-bytes", str(2**16), "--max-weight", "1e9")
"""As small as growing segments get: 212 rows of this model. Weights tell versions of any number."""


class Place:
    """A store, its state, and the history of that state.

    Args:
        model: the bundle of digits.
        folder: where to put store and states.
    """

    def __init__(self, model: FittedModel, folder: Path) -> None:
        self.store = searched_whole(model, folder / "store")
        self.states = folder / "states"
        self.digits = Digits(PIXELS, LABELS)
        self.history = History(FITTED_ROWS)
        self._classes = model.bundle.manifest.classes or []

    def options(self, states: Path | None = None) -> list[str]:
        """What tells a command where the state is, or others of the same store are."""
        return ["--store", str(self.store), "--state-dir", str(states or self.states)]

    def server(self, *flags: str) -> Server:
        """Two workers."""
        return Server(self.store, self.states, (*FLAGS, *flags), workers=2)

    def memory(self, server: Server, seed: int = 0) -> ServedMemory:
        return ServedMemory(str(server.client.base_url), self.digits, self._classes, seed)

    def load(self, server: Server, seed: int) -> ServerLoad:
        """Clients that go on where the history ends; a new seed for each load."""
        known = {id: s for id, s in self.history.states.items() if s[1] != fitted.SOURCE}
        return ServerLoad(
            lambda number: self.memory(server, seed + number),
            self.options(),
            self.history.take,
            seed,
            known,
        )

    def states_in(self, server: Server) -> States:
        """Every memory that a server shows."""
        with closing(self.memory(server)) as memory:
            return memory.states(None) | memory.states(fitted.SOURCE)

    def check(self, server: Server) -> None:
        """What there is is what the clients were told, whoever is asked and however."""
        states = self.states_in(server)
        self.history.settle(states)
        touched = self.history.touched
        with closing(self.memory(server)) as memory:
            assert memory.find(touched, "") == {id: states[id] for id in touched if id in states}
        touched.clear()

        def counts_them(answer: httpx.Response) -> None:
            assert answer.json()["memory"]["size"] == len(states)

        ask_everyone(server, counts_them, method="GET", path="/model")


def searched_whole(model: FittedModel, root: Path) -> Path:
    """A store with the same bundle, whose searches look at every memory: answers are exact."""
    with ModelStore(root).draft("digits") as draft:
        shutil.copytree(model.bundle.path, draft.path, dirs_exist_ok=True)
        parameters = model.bundle.manifest.parameters.model_copy(update={"ef": 10**4})
        draft.publish(model.bundle.manifest.model_copy(update={"parameters": parameters}))
    return root
