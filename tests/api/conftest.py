"""Running services on the fitted bundles."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from resmem_service.settings import load

from tests.api.local_service import LocalService
from tests.conftest import FittedModel

Start = Callable[..., LocalService]


@pytest.fixture(scope="session")
def digits_service(
    digits: FittedModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalService]:
    """A classifier that no test teaches anything."""
    with LocalService(load(store=digits.store, state_dir=tmp_path_factory.mktemp("s"))) as service:
        yield service


@pytest.fixture(scope="session")
def diabetes_service(
    diabetes: FittedModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalService]:
    """A regression that no test teaches anything."""
    with LocalService(
        load(store=diabetes.store, state_dir=tmp_path_factory.mktemp("s"))
    ) as service:
        yield service


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a service of the test's own: `start(model, max_body_bytes=2048)`."""
    with ExitStack() as stack:

        def begin(model: FittedModel, **settings: Any) -> LocalService:
            settings = {"store": model.store, "state_dir": tmp_path / "state", **settings}
            return stack.enter_context(LocalService(load(**settings)))

        yield begin
