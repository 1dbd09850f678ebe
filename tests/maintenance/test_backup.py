import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from resmem_service.errors import BundleError, CorruptFile, JournalUnavailable
from resmem_service.maintenance.backup import BackedUp, back_up
from resmem_service.maintenance.backup_check import check_backup
from resmem_service.maintenance.backup_manifest import BackupManifest
from resmem_service.maintenance.restore import restore
from resmem_service.memory.journal.sqlite.snapshot import open_snapshot
from resmem_service.memory.memory import ResidualMemory
from resmem_service.memory.options import MemoryOptions
from resmem_service.memory.segments.folders import StateFolders
from resmem_service.progress import Silent

from tests.maintenance.examples import Taught, digit_memories, flip, listing
from tests.memory.examples import execute


def saved(taught: Taught, target: Path, *, link: bool = False) -> BackedUp:
    return back_up(taught.bundle, taught.folders, target, link=link, progress=Silent())


def faults(taught: Taught, backup: Path) -> list[str]:
    found = check_backup(backup, taught.bundle, Silent())
    return [finding.detail for finding in found if finding.level == "fault"]


@pytest.mark.parametrize("link", [False, True])
def test_a_backup_is_whole_and_checked(taught: Taught, tmp_path: Path, link: bool) -> None:
    before = listing(taught.folders.root)
    done = saved(taught, tmp_path / "saved", link=link)
    assert (done.manifest.memories, done.manifest.revision) == (148, 153)
    assert done.left_out == []
    assert len(done.manifest.files) == 19
    assert BackupManifest.read(tmp_path / "saved") == done.manifest
    assert faults(taught, tmp_path / "saved") == []
    assert listing(taught.folders.root) == before
    inode = (tmp_path / "saved/segments/00000001/graph.hnsw").stat().st_ino
    assert (inode == (taught.segment(1) / "graph.hnsw").stat().st_ino) is link
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_it_takes_what_is_still_in_the_log(taught: Taught, tmp_path: Path) -> None:
    journal = taught.journal()
    journal.append([digit_memories(taught.model, range(200, 210))])
    assert saved(taught, tmp_path / "saved").manifest.memories == 158
    journal.close()


def test_looking_at_a_backup_leaves_it_as_it_is(taught: Taught, tmp_path: Path) -> None:
    saved(taught, tmp_path / "saved")
    names = sorted(path.name for path in (tmp_path / "saved").iterdir())
    assert faults(taught, tmp_path / "saved") == []
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == names
    assert names == ["backup.json", "journal.sqlite3", "segments"]


def test_a_folder_that_is_there_is_never_written_to(taught: Taught, tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    with pytest.raises(BundleError, match="is there already"):
        saved(taught, tmp_path / "saved")
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="cannot write"):
        saved(taught, tmp_path / "file" / "saved")


def test_nothing_memorized_is_nothing_to_save(taught: Taught, tmp_path: Path) -> None:
    taught.folders.journal.unlink()
    with pytest.raises(BundleError, match="nothing was memorized"):
        saved(taught, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_a_damaged_segment_is_left_out_and_said(taught: Taught, tmp_path: Path) -> None:
    flip(taught.segment(1) / "residuals.npy", 0.9)
    shutil.rmtree(taught.segment(2))
    done = saved(taught, tmp_path / "saved")
    assert len(done.left_out) == 2
    assert "residuals.npy differs from its checksum" in done.left_out[0]
    assert "00000002 is missing" in done.left_out[1]
    assert list(done.manifest.files) == ["journal.sqlite3"]


def test_of_a_damaged_journal_no_backup_is_made(taught: Taught, tmp_path: Path) -> None:
    journal = taught.folders.journal
    ((size,),) = execute(journal, "PRAGMA page_size")
    ((page,),) = execute(journal, "SELECT rootpage FROM sqlite_master WHERE name = 'memories'")
    content = bytearray(taught.folders.journal.read_bytes())
    content[(page - 1) * size : page * size] = bytes(size)
    taught.folders.journal.write_bytes(content)
    with pytest.raises(CorruptFile, match=r"malformed|damaged"):
        saved(taught, tmp_path / "saved")
    assert list(tmp_path.iterdir()) == [tmp_path / "states"]


def test_a_backup_that_is_killed_leaves_no_backup(taught: Taught, tmp_path: Path) -> None:
    target = tmp_path / "saved"
    code = (
        "import os, signal\n"
        "from resmem_service.memory.journal.sqlite.snapshot import JournalSnapshot\n"
        "JournalSnapshot.copy = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from resmem_service.cli import main\n"
        f"main(['backup', '--to', {str(target)!r}, *{taught.options()!r}])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not target.exists()
    left = tmp_path / ".saved.partial"
    assert (left / "segments/00000001/graph.hnsw").exists()
    with pytest.raises(BundleError, match="is not a backup"):
        BackupManifest.read(left)
    assert saved(taught, target).manifest.memories == 148
    assert not left.exists()


def test_two_backups_to_one_folder_do_not_meet(
    taught: Taught, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[str] = []

    def meet(*_: object) -> None:
        with pytest.raises(BundleError, match="another process") as error:
            saved(taught, tmp_path / "saved")
        refused.append(str(error.value))
        raise OSError("stop here")

    monkeypatch.setattr("resmem_service.memory.journal.sqlite.snapshot.JournalSnapshot.copy", meet)
    with pytest.raises(BundleError, match="stop here"):
        saved(taught, tmp_path / "saved")
    assert len(refused) == 1


def test_a_segment_merged_away_meanwhile_does_no_harm(
    taught: Taught, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_open = Path.open
    merged = Event()

    def merge_first(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path.name == "residuals.npy" and not merged.is_set():
            merged.set()
            memory = open_memory(taught)
            # Both are built anew and the old folders removed; the log waits for the backup's end.
            with pytest.raises(JournalUnavailable, match="another process reads it"):
                memory.compact()
            memory.close()
        return real_open(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", merge_first)
    done = saved(taught, tmp_path / "saved")
    monkeypatch.undo()
    assert merged.is_set()
    assert done.left_out == []
    assert {name.split("/")[1] for name in done.manifest.files if "/" in name} == {
        "00000003",
        "00000004",
    }
    assert faults(taught, tmp_path / "saved") == []


def test_a_backup_during_appends_is_a_prefix(taught: Taught, tmp_path: Path) -> None:
    """Sealing and merging go on; what comes back is what was acknowledged at one moment."""
    memory = open_memory(taught, seal=True)
    begun, stop = Event(), Event()
    acknowledged: list[str] = []

    def write() -> None:
        row = 200
        while not stop.is_set():
            added = memory.append(digit_memories(taught.model, range(row, row + 7))).result(10)
            acknowledged.extend(added.ids)
            begun.set()
            row = 200 + (row - 193) % 602

    writer = Thread(target=write)
    writer.start()
    done = []
    try:
        assert begun.wait(30)
        for number in range(3):
            least = len(set(acknowledged))
            done.append((least, saved(taught, tmp_path / f"saved-{number}", link=number == 1)))
    finally:
        stop.set()
        writer.join(60)
    memory.close()
    for number, (least, backed_up) in enumerate(done):
        assert backed_up.manifest.memories >= 148 + least
        assert faults(taught, tmp_path / f"saved-{number}") == []
        states = StateFolders(tmp_path / f"restored-{number}" / "digits" / "1")
        restore(tmp_path / f"saved-{number}", taught.bundle, states, force=False, progress=Silent())
        with open_snapshot(states.journal) as snapshot:
            ids = [memory.record.id for memory in snapshot.stored()]
        added = [id for id in ids if int(id.removeprefix("digit-")) >= 200]
        # Requests have seven rows each and are there whole, in the order of their replies.
        assert len(added) % 7 == 0
        assert added == list(dict.fromkeys(acknowledged))[: len(added)]
        again = open_memory(Taught(taught.model, states))
        assert again.size == 899 + len(ids)
        again.close()


def open_memory(taught: Taught, *, seal: bool = False) -> ResidualMemory:
    options = MemoryOptions(growing_bytes=1) if seal else MemoryOptions(maintain=False, busy_ms=50)
    return ResidualMemory.open(
        taught.folders.root,
        fitted=taught.bundle.memories_path,
        shape=taught.bundle.manifest.memory_shape(),
        options=options,
    )


@pytest.mark.parametrize("name", ["journal.sqlite3", "segments/00000002/sequences.npy"])
@pytest.mark.parametrize("how", ["flip", "cut", "lose"])
def test_damage_to_a_backup_is_named(taught: Taught, tmp_path: Path, name: str, how: str) -> None:
    saved(taught, tmp_path / "saved")
    file = tmp_path / "saved" / name
    if how == "flip":
        flip(file, 0.7)
    elif how == "cut":
        os.truncate(file, file.stat().st_size // 2)
    else:
        file.unlink()
    assert any(str(file) in fault for fault in faults(taught, tmp_path / "saved"))


def test_a_damaged_manifest_of_a_backup_is_named(taught: Taught, tmp_path: Path) -> None:
    saved(taught, tmp_path / "saved")
    manifest = tmp_path / "saved" / "backup.json"
    manifest.write_bytes(manifest.read_bytes()[:-10])
    assert "backup.json is not a manifest" in faults(taught, tmp_path / "saved")[0]
    with pytest.raises(BundleError, match="is not a backup"):
        faults(taught, tmp_path / "nowhere")
