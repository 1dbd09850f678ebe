import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from resmem_service.bundle.store import Bundle
from resmem_service.memory.segments.folders import StateFolders

from tests.conftest import FittedModel
from tests.maintenance.examples import Taught, teach


@pytest.fixture(scope="session")
def template(digits: FittedModel, tmp_path_factory: pytest.TempPathFactory) -> Taught:
    return teach(digits, tmp_path_factory.mktemp("template"))


@pytest.fixture
def taught(template: Taught, tmp_path: Path) -> Taught:
    """A state of its own for each test."""
    root = tmp_path / "states" / "digits" / "1"
    shutil.copytree(template.folders.root, root)
    return Taught(template.model, StateFolders(root))


@pytest.fixture
def own_store(taught: Taught, tmp_path: Path) -> Taught:
    """As `taught`, with a bundle of its own to damage."""
    store = shutil.copytree(taught.model.store, tmp_path / "store")
    bundle = Bundle.open(store / "digits" / "1")
    return Taught(replace(taught.model, store=store, bundle=bundle), taught.folders)
