"""Export and import, JSON Lines and Parquet: what goes out comes back, and bad files are named."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from resmem_service.bundle.store import Bundle
from resmem_service.errors import BundleError, CorruptFile, QueueFull
from resmem_service.inference.rows import Rows
from resmem_service.maintenance.export import export_memories
from resmem_service.maintenance.importer import Imported, import_memories
from resmem_service.maintenance.verification import verify_state
from resmem_service.memory.journal.journal import StoredMemory
from resmem_service.memory.journal.sqlite.snapshot import open_snapshot
from resmem_service.memory.memory import ResidualMemory
from resmem_service.memory.options import MemoryOptions
from resmem_service.memory.segments.folders import StateFolders
from resmem_service.progress import Silent

from tests.conftest import FittedModel, TwoVersions
from tests.maintenance.examples import Taught, digit_memories, flip


class KeptLines(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def exported(
    taught: Taught,
    target: Path,
    *,
    source: str | None = None,
    vectors: bool = False,
    skip_bad: bool = False,
    force: bool = False,
    kept: KeptLines | None = None,
) -> int:
    return export_memories(
        taught.bundle,
        taught.folders,
        target,
        source=source,
        vectors=vectors,
        skip_bad=skip_bad,
        force=force,
        progress=kept or Silent(),
    )


def imported(
    bundle: Bundle,
    state: Path,
    file: Path,
    *,
    skip_bad: bool = False,
    kept: KeptLines | None = None,
    options: MemoryOptions | None = None,
    max_weight: float | None = None,
) -> Imported:
    memory = ResidualMemory.open(
        state,
        fitted=bundle.memories_path,
        shape=bundle.manifest.memory_shape(),
        options=options or MemoryOptions(maintain=False),
    )
    try:
        return import_memories(
            bundle,
            memory,
            file,
            skip_bad=skip_bad,
            provider="cpu",
            progress=kept or Silent(),
            max_weight=max_weight,
        )
    finally:
        memory.close()


def stored(state: Path) -> list[StoredMemory]:
    with open_snapshot(StateFolders(state).journal) as snapshot:
        return list(snapshot.stored())


def contents(memories: list[StoredMemory]) -> list[object]:
    """All but the sequences, which begin anew."""
    return [
        (
            replace(memory.record, sequence=0),
            memory.input,
            memory.embedding.tobytes(),
            memory.residual.tobytes(),
        )
        for memory in memories
    ]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "other" / "digits" / "1"


@pytest.mark.parametrize("name", ["memories.jsonl", "memories.parquet"])
@pytest.mark.parametrize("vectors", [False, True])
def test_what_goes_out_comes_back_to_the_last_bit(
    taught: Taught, tmp_path: Path, state: Path, name: str, vectors: bool
) -> None:
    file = tmp_path / name
    assert exported(taught, file, vectors=vectors) == 148
    done = imported(taught.bundle, state, file)
    assert done == Imported(created=148, embedded=0 if vectors else 148)
    before, after = stored(taught.folders.root), stored(state)
    if vectors:
        assert contents(after) == contents(before)
    for old, new in zip(before, after, strict=True):
        assert (old.input, replace(old.record, sequence=0)) == (
            new.input,
            replace(new.record, sequence=0),
        )
        # The model's batches were others, and so are the last bits.
        np.testing.assert_allclose(new.embedding, old.embedding, atol=1e-5)
        np.testing.assert_allclose(new.residual, old.residual, atol=1e-5)
    assert imported(taught.bundle, state, file).unchanged == 148
    assert len(stored(state)) == 148
    found = verify_state(taught.bundle, StateFolders(state), Silent())
    assert {finding.level for finding in found} == {"ok"}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_lines_are_what_memorize_takes(taught: Taught, tmp_path: Path) -> None:
    exported(taught, tmp_path / "m.jsonl", source="desk", vectors=True)
    lines = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert len(lines) == 98
    assert lines[0]["inputs"] == taught.model.inputs[0].astype(float).tolist()
    assert lines[0]["target"] == str(taught.model.targets[0])
    assert (lines[0]["id"], lines[0]["weight"], lines[0]["source"]) == ("digit-0", 1.5, "desk")
    assert lines[1]["created_ms"] == 1_700_000_000_001
    assert len(lines[0]["embedding"]) == taught.bundle.manifest.embedding.dim
    assert abs(sum(lines[0]["residual"])) < 1e-5


def test_parquet_has_a_column_a_field(taught: Taught, tmp_path: Path) -> None:
    exported(taught, tmp_path / "m.parquet")
    table = pq.read_table(tmp_path / "m.parquet")
    assert table.schema.names == [
        "id", "inputs", "target", "weight", "source", "created_ms", "bundle",
    ]  # fmt: skip
    assert table.column("source").null_count == 50
    values = table.column("inputs").combine_chunks().flatten().to_numpy().reshape(-1, 64)
    assert np.array_equal(values[0], taught.model.inputs[0])


def test_numbers_travel_as_well_as_classes(diabetes: FittedModel, tmp_path: Path) -> None:
    state = tmp_path / "states" / "diabetes" / "1"
    lines = [
        {"inputs": row.astype(float).tolist(), "target": float(target[0]), "id": f"p-{number}"}
        for number, (row, target) in enumerate(
            zip(diabetes.inputs[:20], diabetes.targets[:20], strict=True)
        )
    ]
    write(tmp_path / "in.jsonl", lines)
    assert imported(diabetes.bundle, state, tmp_path / "in.jsonl").created == 20
    taught = Taught(diabetes, StateFolders(state))
    for name in ("out.jsonl", "out.parquet"):
        assert exported(taught, tmp_path / name, vectors=True) == 20
        again = tmp_path / f"again-{name}"
        assert imported(diabetes.bundle, again, tmp_path / name).embedded == 0
        assert contents(stored(again)) == contents(stored(state))


def test_another_version_runs_its_own_model(
    taught: Taught, digits_twice: TwoVersions, tmp_path: Path, state: Path
) -> None:
    exported(taught, tmp_path / "m.jsonl", vectors=True)
    done = imported(digits_twice.new, state, tmp_path / "m.jsonl")
    assert (done.created, done.embedded) == (148, 148)
    for memory in stored(state):
        row = int(memory.record.id.removeprefix("digit-"))
        # The classes stand in the opposite order there; names carry over, indices would not.
        assert memory.record.target == 9 - taught.model.targets[row]
        assert len(memory.embedding) == digits_twice.new.manifest.embedding.dim
        assert memory.residual.argmax() == memory.record.target


def test_a_replaced_fitted_memory_is_named_anew_in_another_bundle(
    taught: Taught, digits_twice: TwoVersions, tmp_path: Path, state: Path
) -> None:
    journal = taught.journal()
    memories = digit_memories(taught.model, [300])
    memories.ids[0] = "fit-8"
    journal.append([memories])
    journal.close()
    exported(taught, tmp_path / "m.jsonl")
    imported(digits_twice.new, state, tmp_path / "m.jsonl")
    assert stored(state)[-1].record.id == "imported-fit-8"
    done = imported(taught.bundle, tmp_path / "same", tmp_path / "m.jsonl")
    assert (done.created, done.replaced) == (148, 1)
    assert stored(tmp_path / "same")[-1].record.id == "fit-8"


def test_rows_without_ids_are_added_once(digits: FittedModel, tmp_path: Path, state: Path) -> None:
    lines = [line(digits, row) for row in range(30)]
    for one in lines:
        del one["id"]
    write(tmp_path / "m.jsonl", lines)
    assert imported(digits.bundle, state, tmp_path / "m.jsonl").created == 30
    lines.append({**lines[3], "weight": 3})
    write(tmp_path / "m.jsonl", lines)
    assert imported(digits.bundle, state, tmp_path / "m.jsonl") == Imported(
        created=1, unchanged=30, embedded=31
    )


def test_the_last_of_an_id_wins(digits: FittedModel, tmp_path: Path, state: Path) -> None:
    lines = [line(digits, 0), line(digits, 1), {**line(digits, 2), "id": "digit-0"}]
    write(tmp_path / "m.jsonl", lines)
    done = imported(digits.bundle, state, tmp_path / "m.jsonl")
    assert (done.created, done.replaced) == (2, 1)
    assert [memory.record.id for memory in stored(state)] == ["digit-1", "digit-0"]
    assert stored(state)[1].input == Rows({"pixels": digits.inputs[2:3]}).encode()[0]


BAD: dict[str, Callable[[dict[str, object]], object]] = {
    "not JSON": lambda _: "{not json",
    "not an object": lambda _: "[1, 2]",
    "inputs: is missing": lambda one: {**one, "inputs": None},
    "target: is missing": lambda one: {key: one[key] for key in ("inputs", "id")},
    "has shape": lambda one: {**one, "inputs": [1.0, 2.0]},
    "string": lambda one: {**one, "inputs": ["a"] * 64},
    "'ten' is not a class": lambda one: {**one, "target": "ten"},
    "10 is not a class": lambda one: {**one, "target": 10},
    "True is not a class": lambda one: {**one, "target": True},
    "weight: must be a number above 0": lambda one: {**one, "weight": 0},
    "weight: must be a number above 0, at least": lambda one: {**one, "weight": 1e-300},
    "source: must be": lambda one: {**one, "source": "fit"},
    "id: must be": lambda one: {**one, "id": 5},
    "created_ms: must be": lambda one: {**one, "created_ms": "yesterday"},
    "wieght: is not a field": lambda one: {**one, "wieght": 2},
}


@pytest.mark.parametrize("complaint", BAD)
def test_a_bad_line_is_named_and_nothing_of_its_batch_kept(
    digits: FittedModel, tmp_path: Path, state: Path, complaint: str
) -> None:
    lines: list[object] = [line(digits, row) for row in range(5)]
    lines[3] = BAD[complaint](line(digits, 3))
    write(tmp_path / "m.jsonl", ["", *lines])
    with pytest.raises(BundleError) as error:
        imported(digits.bundle, state, tmp_path / "m.jsonl")
    assert f"{tmp_path / 'm.jsonl'}, line 5: " in str(error.value)
    assert complaint in str(error.value)
    assert "row 0" not in str(error.value)
    assert stored(state) == []
    kept = KeptLines()
    done = imported(digits.bundle, state, tmp_path / "m.jsonl", skip_bad=True, kept=kept)
    assert (done.created, done.skipped) == (4, 1)
    assert len(kept.lines) == 1
    assert kept.lines[0].startswith("skipped: ")


def test_batches_before_a_bad_line_stay(digits: FittedModel, tmp_path: Path, state: Path) -> None:
    lines: list[object] = [line(digits, row % 800) | {"id": str(row)} for row in range(1100)]
    write(tmp_path / "m.jsonl", [*lines, "{"])
    with pytest.raises(BundleError, match=r"line 1101: is not JSON.* 1024 memories before"):
        imported(digits.bundle, state, tmp_path / "m.jsonl")
    assert len(stored(state)) == 1024
    write(tmp_path / "m.jsonl", lines)
    done = imported(digits.bundle, state, tmp_path / "m.jsonl")
    assert (done.created, done.unchanged) == (76, 1024)


@pytest.mark.parametrize("change", [{"embedding": [1.0]}, {"residual": None}])
def test_half_of_the_vectors_is_a_bad_line(
    taught: Taught, tmp_path: Path, state: Path, change: dict[str, object]
) -> None:
    exported(taught, tmp_path / "m.jsonl", vectors=True)
    lines = [json.loads(text) for text in (tmp_path / "m.jsonl").read_text().splitlines()]
    lines[1] |= change
    write(tmp_path / "m.jsonl", lines)
    with pytest.raises(BundleError, match=r"line 2: .* finite float32"):
        imported(taught.bundle, state, tmp_path / "m.jsonl")


def test_what_the_model_answers_with_infinity_is_told_from_the_rest(
    digits: FittedModel, tmp_path: Path, state: Path
) -> None:
    lines = [line(digits, row) for row in range(9)]
    lines[6]["inputs"] = [3e38] * 64
    write(tmp_path / "m.jsonl", lines)
    with pytest.raises(BundleError, match="line 7: inputs: the model answers it with NaN"):
        imported(digits.bundle, state, tmp_path / "m.jsonl")
    done = imported(digits.bundle, state, tmp_path / "m.jsonl", skip_bad=True)
    assert (done.created, done.skipped) == (8, 1)


def test_import_waits_where_sealing_is_behind(
    digits: FittedModel, tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "m.jsonl", [line(digits, row) for row in range(5)])
    refusals = iter([True, True, False])
    append = ResidualMemory.append

    def behind(self: ResidualMemory, memories: object) -> object:
        if next(refusals):
            raise QueueFull("memories arrive faster than they can be sealed")
        return append(self, memories)  # type: ignore[arg-type]

    monkeypatch.setattr(ResidualMemory, "append", behind)
    assert imported(digits.bundle, state, tmp_path / "m.jsonl").created == 5


def test_files_that_cannot_be_read_are_named(
    digits: FittedModel, tmp_path: Path, state: Path
) -> None:
    with pytest.raises(BundleError, match=r"there is no file .*nowhere\.jsonl"):
        imported(digits.bundle, state, tmp_path / "nowhere.jsonl")
    (tmp_path / "m.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(BundleError, match=r"m\.parquet is not a Parquet file"):
        imported(digits.bundle, state, tmp_path / "m.parquet")


def test_a_damaged_parquet_file_is_named(taught: Taught, tmp_path: Path, state: Path) -> None:
    exported(taught, tmp_path / "m.parquet")
    flip(tmp_path / "m.parquet", 0.3)
    with pytest.raises(BundleError, match=r"m\.parquet"):
        imported(taught.bundle, state, tmp_path / "m.parquet")


def test_a_damaged_memory_stops_an_export_or_is_left_out(taught: Taught, tmp_path: Path) -> None:
    content = taught.folders.journal.read_bytes()
    memory = stored(taught.folders.root)[50]
    flip(taught.folders.journal, content.index(memory.residual.tobytes()) + 3)
    with pytest.raises(CorruptFile, match=f"memory {memory.record.sequence} .* checksum"):
        exported(taught, tmp_path / "m.jsonl")
    assert not (tmp_path / "m.jsonl").exists()
    kept = KeptLines()
    assert exported(taught, tmp_path / "m.jsonl", skip_bad=True, kept=kept) == 147
    assert memory.record.id in kept.lines[0]


def test_an_export_replaces_nothing_unasked(taught: Taught, tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text("mine")
    with pytest.raises(BundleError, match="--force replaces it"):
        exported(taught, tmp_path / "m.jsonl")
    assert exported(taught, tmp_path / "m.jsonl", force=True) == 148


@pytest.mark.parametrize(
    ("name", "source", "complaint"),
    [
        ("m.csv", None, r"\.jsonl or \.parquet"),
        ("m.jsonl", "fit", "part of the bundle"),
        ("nowhere/m.jsonl", None, "cannot write"),
    ],
)
def test_an_export_that_cannot_be_is_refused(
    taught: Taught, tmp_path: Path, name: str, source: str | None, complaint: str
) -> None:
    with pytest.raises(BundleError, match=complaint):
        exported(taught, tmp_path / name, source=source)


def test_nothing_memorized_is_nothing_to_export(taught: Taught, tmp_path: Path) -> None:
    taught.folders.journal.unlink()
    with pytest.raises(BundleError, match="nothing was memorized"):
        exported(taught, tmp_path / "m.jsonl")


@pytest.fixture
def without_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resmem_service.extra.installed", lambda _: False)


@pytest.mark.usefixtures("without_extra")
def test_parquet_names_the_extra_it_needs(taught: Taught, tmp_path: Path, state: Path) -> None:
    with pytest.raises(BundleError, match=r"resmem-service\[fit\]"):
        exported(taught, tmp_path / "m.parquet")
    (tmp_path / "m.parquet").touch()
    with pytest.raises(BundleError, match=r"resmem-service\[fit\]"):
        imported(taught.bundle, state, tmp_path / "m.parquet")
    assert exported(taught, tmp_path / "m.jsonl") == 148


def line(model: FittedModel, row: int) -> dict[str, object]:
    return {
        "id": f"digit-{row}",
        "inputs": model.inputs[row].astype(float).tolist(),
        "target": int(model.targets[row]),
    }


def write(path: Path, lines: list[dict[str, object]] | list[object]) -> None:
    path.write_text(
        "".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in lines)
    )


def test_a_heavy_memory_of_an_earlier_version_goes_out_and_comes_in_only_if_it_is_meant(
    taught: Taught, tmp_path: Path, state: Path
) -> None:
    """It was taken when there was no bound: it stays where it is, and votes."""
    journal = taught.journal()
    heavy = replace(digit_memories(taught.model, [600]), weights=np.array([1e6]))
    journal.append([heavy])
    journal.close()
    file = tmp_path / "memories.jsonl"
    assert exported(taught, file, vectors=False) == 149
    bound = taught.bundle.manifest.max_weight
    with pytest.raises(BundleError, match=rf"weight: is 1e\+06, .*{bound:g} .*--max-weight"):
        imported(taught.bundle, state, file)
    done = imported(taught.bundle, state, file, skip_bad=True)
    assert (done.created, done.skipped) == (148, 1)
    assert imported(taught.bundle, state, file, max_weight=1e6).created == 1
    assert max(memory.record.weight for memory in stored(state)) == 1e6


def test_forgotten_memories_of_the_bundle_are_named_since_no_file_tells_of_them(
    taught: Taught, tmp_path: Path
) -> None:
    """They voted again where the file was imported, and nothing said so."""
    journal = taught.journal()
    assert journal.forget("fit-8")
    assert journal.forget("fit-9")
    replacing = digit_memories(taught.model, [300])
    replacing.ids[0] = "fit-9"
    journal.append([replacing])
    journal.close()
    kept = KeptLines()
    assert exported(taught, tmp_path / "m.jsonl", kept=kept) == 149
    (line,) = kept.lines
    assert line.startswith(
        "forgotten memories of the bundle, which the file does not hold: 2 (fit-3, fit-8);"
    )
