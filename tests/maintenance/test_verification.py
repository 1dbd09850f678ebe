import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from threading import Thread

import apsw
import numpy as np
import pytest
from resmem_service.maintenance.finding import Finding
from resmem_service.maintenance.verification import verify, verify_state
from resmem_service.memory.journal.sqlite.rows import columns, insertion
from resmem_service.memory.journal.sqlite.snapshot import open_snapshot
from resmem_service.memory.segments.folders import StateFolders
from resmem_service.progress import Silent

from tests.maintenance.examples import Taught, digit_memories, flip, listing

SEGMENT_FILES = (
    "graph.hnsw",
    "residuals.npy",
    "targets.npy",
    "sequences.npy",
    "weights.npy",
    "links.npy",
    "sketches.npy",
    "grid.npy",
    "segment.json",
)


def findings(taught: Taught) -> list[Finding]:
    return list(verify(taught.bundle, taught.folders, Silent()))


def faults(taught: Taught) -> list[Finding]:
    return [finding for finding in findings(taught) if finding.level == "fault"]


def test_a_healthy_state_is_checked_part_by_part(taught: Taught) -> None:
    before = listing(taught.folders.root)
    found = findings(taught)
    assert [(finding.level, finding.subject) for finding in found] == [
        ("ok", "bundle digits/1"),
        ("ok", "fitted memories"),
        ("ok", "journal log"),
        ("ok", "journal file"),
        ("ok", "journal rows"),
        ("ok", "catalogue"),
        ("ok", "segment 00000001"),
        ("ok", "segment 00000002"),
    ]
    assert "148 memories" in found[4].detail
    assert "2 segments hold 108 of the memories, 40 are newer" in found[5].detail
    assert listing(taught.folders.root) == before


def test_nothing_memorized_yet_is_no_fault(taught: Taught, tmp_path: Path) -> None:
    found = list(verify_state(taught.bundle, StateFolders(tmp_path / "none"), Silent()))
    assert [finding.level for finding in found] == ["ok"]
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", SEGMENT_FILES)
@pytest.mark.parametrize("at", [0.0, 0.5, 0.999])
def test_a_flipped_bit_in_a_segment_is_named(taught: Taught, name: str, at: float) -> None:
    path = taught.segment(2) / name
    flip(path, at)
    (found,) = faults(taught)
    assert found.subject == "segment 00000002"
    assert str(path.parent) in found.detail
    assert found.advice is not None
    assert "safe in the journal" in found.advice
    assert "resmem repair" in found.advice


@pytest.mark.parametrize("name", SEGMENT_FILES)
@pytest.mark.parametrize("kept", [0, 1, 97, 0.5, -1])
def test_a_cut_segment_file_is_named(taught: Taught, name: str, kept: float) -> None:
    path = taught.segment(1) / name
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    if name == "segment.json" and kept == -1:
        assert faults(taught) == []  # all that is gone is the newline at its end
    else:
        (found,) = faults(taught)
        assert found.subject == "segment 00000001"


def test_a_missing_segment_is_named(taught: Taught) -> None:
    shutil.rmtree(taught.segment(1))
    (found,) = faults(taught)
    assert "segment.json is missing" in found.detail


def test_a_flipped_bit_anywhere_in_the_journal_is_found_or_harms_nothing(taught: Taught) -> None:
    journal = taught.folders.journal
    whole = journal.read_bytes()
    with open_snapshot(journal) as snapshot:
        before = [repr(memory) for memory in snapshot.stored()]
        tables = snapshot.catalogue, snapshot.position
    missed = 0
    places = np.random.default_rng(0).integers(0, len(whole), 60)
    for place in (17, 18, 27, *places.tolist()):
        content = bytearray(whole)
        content[place] ^= 0x10
        journal.write_bytes(content)
        if any(f.level == "fault" for f in verify_state(taught.bundle, taught.folders, Silent())):
            continue
        missed += 1
        with open_snapshot(journal) as snapshot:
            assert [repr(memory) for memory in snapshot.stored()] == before, place
            assert tables == (snapshot.catalogue, snapshot.position)
    assert missed < 40


@pytest.mark.parametrize("kept", [0, 1, 100, 4096, 0.5, -4096, -1])
def test_a_cut_journal_is_named(taught: Taught, kept: float) -> None:
    journal = taught.folders.journal
    content = journal.read_bytes()
    journal.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    found = faults(taught)
    assert found
    assert all("journal.sqlite3" in finding.detail for finding in found)
    assert any(f.advice is not None and "resmem restore" in f.advice for f in found)


def test_a_missing_journal_beside_segments_is_a_fault(taught: Taught) -> None:
    taught.folders.journal.unlink()
    (found,) = faults(taught)
    assert "journal.sqlite3 is missing" in found.detail


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("UPDATE memories SET embedding = zeroblob(8) WHERE sequence = 7", "checksum"),
        ("UPDATE memories SET weight = 2 WHERE sequence = 7", "checksum"),
        ("UPDATE memories SET input = input || x'00' WHERE sequence = 7", "an input that differs"),
        ("UPDATE memories SET created_ms = 'now' WHERE sequence = 7", "checksum"),
        ("DELETE FROM memories WHERE sequence = 7", "has lost 1 memories"),
        ("DELETE FROM segments WHERE number = 1", "59 memories are in no segment"),
        ("UPDATE segments SET rows = 59 WHERE number = 1", "holds 60 rows instead of 59"),
        ("UPDATE horizon SET sequence = 10", "everything up to 10 was evicted"),
        ("INSERT INTO tombstones (sequence) VALUES (7)", "and forgotten as well"),
        ("UPDATE sqlite_sequence SET seq = 20 WHERE name = 'memories'", "it has lost its end"),
        ("UPDATE meta SET value = '12' WHERE key = 'dim'", "made for another model"),
        ("DROP TABLE segments", "no journal"),
        ("DELETE FROM horizon", "no readable catalogue"),
    ],
)
def test_what_the_journal_says_wrong_is_found(taught: Taught, change: str, complaint: str) -> None:
    with closing(apsw.Connection(str(taught.folders.journal))) as connection:
        connection.execute(change)
    assert any(complaint in finding.detail for finding in faults(taught)), findings(taught)


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("embeddings", np.nan, "embedding that is not finite"),
        ("residuals", np.inf, "residual that is not finite"),
        ("weights", -1.0, "weight that is not above 0"),
        ("targets", 10, "target that the model cannot have"),
    ],
)
def test_a_memory_that_should_never_have_been_written_is_found(
    taught: Taught, field: str, value: float, complaint: str
) -> None:
    memories = digit_memories(taught.model, range(200, 203))
    getattr(memories, field)[1] = value
    with closing(apsw.Connection(str(taught.folders.journal))) as connection, connection:
        for row in columns([memories], taught.bundle.manifest.memory_shape()):
            connection.execute(insertion(1), row)
    (found,) = faults(taught)
    assert complaint in found.detail
    assert "digit-201" in found.detail


def test_an_input_that_the_model_does_not_take_is_found(taught: Taught) -> None:
    memories = digit_memories(taught.model, range(200, 203))
    memories.inputs[2] = memories.inputs[2][:-4]
    journal = taught.journal()
    journal.append([memories])
    journal.close()
    (found,) = faults(taught)
    assert "digit-202" in found.detail
    assert "input that the model does not take" in found.detail


def damage_model(bundle: Path) -> None:
    flip(bundle / "base.onnx", 0.5)


def damage_graph(bundle: Path) -> None:
    flip(bundle / "memories" / "graph.hnsw", 0.5)


def cut_residuals(bundle: Path) -> None:
    path = bundle / "memories" / "residuals.npy"
    path.write_bytes(path.read_bytes()[:-1])


def lose_targets(bundle: Path) -> None:
    (bundle / "memories" / "targets.npy").unlink()


@pytest.mark.parametrize("damage", [damage_model, damage_graph, cut_residuals, lose_targets])
def test_a_damaged_bundle_is_named(own_store: Taught, damage: Callable[[Path], None]) -> None:
    damage(own_store.bundle.path)
    (found,) = faults(own_store)
    assert found.subject == "bundle digits/1"
    assert str(own_store.bundle.path) in found.detail
    assert found.advice is not None
    assert "memories added online are not in it" in found.advice


def test_leftovers_are_noted_and_are_no_faults(own_store: Taught) -> None:
    (own_store.bundle.path / "notes.txt").write_text("mine")
    (own_store.folders.segments / "00000077").mkdir()
    (own_store.folders.segments / "lost+found").mkdir()
    own_store.folders.building.mkdir()
    notes = [finding.detail for finding in findings(own_store) if finding.level == "note"]
    assert len(notes) == 4
    assert "notes.txt" in notes[0]
    assert "being built now, or left by a killed process: the next build removes it" in notes[1]
    assert "00000077 is not a part of the state: the next build removes it" in notes[2]
    assert "lost+found is not a part of the state: nothing reads or removes it" in notes[3]
    assert faults(own_store) == []


def test_a_disk_that_cannot_be_read_is_a_fault(
    taught: Taught, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("resmem_service.maintenance.segment_audit.hashlib.file_digest", refuse)
    monkeypatch.setattr("resmem_service.maintenance.journal_check.damage_in", refuse)
    found = faults(taught)
    assert [finding.subject for finding in found[-3:]] == [
        "journal log",
        "segment 00000001",
        "segment 00000002",
    ]
    assert all("cannot be read: Input/output error" in finding.detail for finding in found)


def test_many_damaged_memories_are_counted(taught: Taught) -> None:
    with closing(apsw.Connection(str(taught.folders.journal))) as connection:
        connection.execute("UPDATE memories SET weight = 3 WHERE sequence > 110")
    found = faults(taught)
    assert len(found) == 6
    assert "35 more such memories" in found[-1].detail


def test_it_works_beside_a_writer(taught: Taught) -> None:
    journal = taught.journal()
    batches = [
        digit_memories(taught.model, range(start, start + 20)) for start in range(200, 600, 20)
    ]
    errors: list[Finding] = []

    def look() -> None:
        for _ in range(3):
            errors.extend(faults(taught))

    looker = Thread(target=look)
    looker.start()
    for batch in batches:
        journal.append([batch])
        journal.forget(str(batch.ids[3]))
    looker.join()
    journal.close()
    assert errors == []
    assert "528 memories" in findings(taught)[4].detail
