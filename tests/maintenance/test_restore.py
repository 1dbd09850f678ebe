import shutil
from pathlib import Path

import pytest
from resmem_service.bundle.store import Bundle
from resmem_service.errors import BundleError, CorruptFile
from resmem_service.maintenance.backup import back_up
from resmem_service.maintenance.restore import Restored, restore
from resmem_service.maintenance.verification import verify_state
from resmem_service.memory.journal.sqlite.snapshot import open_snapshot
from resmem_service.memory.segments.folders import StateFolders
from resmem_service.progress import Silent

from tests.conftest import FittedModel
from tests.maintenance.examples import Taught, digit_memories, flip


@pytest.fixture
def backup(taught: Taught, tmp_path: Path) -> Path:
    back_up(taught.bundle, taught.folders, tmp_path / "saved", link=False, progress=Silent())
    return tmp_path / "saved"


@pytest.fixture
def elsewhere(tmp_path: Path) -> StateFolders:
    return StateFolders(tmp_path / "elsewhere" / "digits" / "1")


def restored(
    backup: Path, bundle: Bundle, folders: StateFolders, *, force: bool = False
) -> Restored:
    return restore(backup, bundle, folders, force=force, progress=Silent())


def memories(folders: StateFolders) -> list[str]:
    with open_snapshot(folders.journal) as snapshot:
        return [repr(memory) for memory in snapshot.stored()]


def faults(taught: Taught, folders: StateFolders) -> list[str]:
    found = verify_state(taught.bundle, folders, Silent())
    return [finding.detail for finding in found if finding.level == "fault"]


def test_a_backup_comes_back_as_it_was(
    taught: Taught, backup: Path, elsewhere: StateFolders
) -> None:
    done = restored(backup, taught.bundle, elsewhere)
    assert (done.manifest.memories, done.aside) == (148, None)
    assert done.repaired.rebuilt == []
    assert memories(elsewhere) == memories(taught.folders)
    assert faults(taught, elsewhere) == []
    assert [path.name for path in elsewhere.root.parent.iterdir()] == ["1"]


def test_an_empty_folder_is_no_state(taught: Taught, backup: Path, elsewhere: StateFolders) -> None:
    elsewhere.root.mkdir(parents=True)
    assert restored(backup, taught.bundle, elsewhere).aside is None
    assert faults(taught, elsewhere) == []


def test_a_state_that_is_there_is_moved_aside_only_by_force(taught: Taught, backup: Path) -> None:
    journal = taught.journal()
    journal.append([digit_memories(taught.model, range(300, 310))])
    journal.close()
    with pytest.raises(BundleError, match="--force"):
        restored(backup, taught.bundle, taught.folders)
    done = restored(backup, taught.bundle, taught.folders, force=True)
    assert len(memories(taught.folders)) == 148
    assert done.aside is not None
    assert len(memories(StateFolders(done.aside))) == 158


def test_a_state_that_is_served_stays(taught: Taught, backup: Path) -> None:
    journal = taught.journal()
    with pytest.raises(BundleError, match="is in use: stop the service"):
        restored(backup, taught.bundle, taught.folders, force=True)
    journal.append([digit_memories(taught.model, range(300, 310))])
    journal.close()
    assert len(memories(taught.folders)) == 158


def test_a_journal_beyond_reading_can_be_replaced(taught: Taught, backup: Path) -> None:
    taught.folders.journal.write_bytes(b"no database at all" * 100)
    assert restored(backup, taught.bundle, taught.folders, force=True).aside is not None
    assert faults(taught, taught.folders) == []


def test_damaged_segments_of_a_backup_are_built_anew(
    taught: Taught, backup: Path, elsewhere: StateFolders
) -> None:
    flip(backup / "segments/00000001/graph.hnsw", 0.5)
    shutil.rmtree(backup / "segments/00000002")
    done = restored(backup, taught.bundle, elsewhere)
    assert [entry.rows for entry in done.repaired.rebuilt] == [59, 49]
    assert faults(taught, elsewhere) == []
    assert memories(elsewhere) == memories(taught.folders)


@pytest.mark.parametrize("at", [0.0, 0.5, 0.99])
def test_of_a_damaged_journal_nothing_is_restored(
    taught: Taught, backup: Path, elsewhere: StateFolders, at: float
) -> None:
    flip(backup / "journal.sqlite3", at)
    with pytest.raises(CorruptFile, match=r"journal\.sqlite3 differs from its checksum"):
        restored(backup, taught.bundle, elsewhere)
    assert list(elsewhere.root.parent.iterdir()) == []


def test_a_backup_belongs_to_its_bundle(
    taught: Taught, backup: Path, elsewhere: StateFolders, diabetes: FittedModel
) -> None:
    with pytest.raises(BundleError, match="is of digits/1, not of diabetes/1"):
        restored(backup, diabetes.bundle, elsewhere)
    parameters = taught.bundle.manifest.parameters.model_copy(update={"temperature": 3.0})
    manifest = taught.bundle.manifest.model_copy(update={"parameters": parameters})
    with pytest.raises(BundleError, match="another bundle under the name digits/1"):
        restored(backup, Bundle(taught.bundle.path, manifest), elsewhere)
    assert not elsewhere.root.exists()


def test_what_is_no_backup_is_refused(taught: Taught, elsewhere: StateFolders) -> None:
    with pytest.raises(BundleError, match="is not a backup"):
        restored(taught.folders.root, taught.bundle, elsewhere)


def test_a_restore_that_fails_leaves_what_was_there(
    taught: Taught, backup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("resmem_service.maintenance.restore.shutil.copyfile", refuse)
    with pytest.raises(BundleError, match="No space left"):
        restored(backup, taught.bundle, taught.folders, force=True)
    assert faults(taught, taught.folders) == []
    assert [path.name for path in taught.folders.root.parent.iterdir()] == ["1"]
