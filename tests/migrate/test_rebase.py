"""A new version takes over what an older one was taught: whole, exact, interruptible."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from numpy.typing import NDArray
from resmem_service.bundle.store import Bundle, ModelStore
from resmem_service.errors import BundleError, CorruptFile
from resmem_service.inference.base_model import BaseModel
from resmem_service.inference.rows import Rows
from resmem_service.memory.memory import ResidualMemory
from resmem_service.memory.options import MemoryOptions
from resmem_service.migrate.rebase import Rebased, rebase
from resmem_service.migrate.takeover import Takeover
from resmem_service.progress import Silent

from tests.conftest import FittedModel, TwoVersions
from tests.fit.test_fit import Listener
from tests.memory.examples import execute
from tests.migrate.states import opened, scores, stored, teach

_PATIENCE_S = 60
_TAUGHT = 300


class States:
    """The folder of all states, with what version 1 was taught."""

    def __init__(self, two: TwoVersions, folder: Path) -> None:
        self.two = two
        self.folder = folder

    @classmethod
    def taught(cls, two: TwoVersions, folder: Path, rows: int = _TAUGHT) -> Self:
        states = cls(two, folder)
        half = rows // 2
        states.teach(two.old, range(half))
        states.teach(two.old, range(half, rows), source="clinic", weight=2.5)
        return states

    def teach(
        self,
        bundle: Bundle,
        rows: range,
        *,
        prefix: str = "id",
        source: str | None = None,
        weight: float = 1.0,
    ) -> None:
        """Teaches held-out digits, each with the label that it has."""
        index = list(rows)
        teach(
            bundle,
            self.folder,
            self.two.inputs[index],
            self.named(bundle, index),
            ids=[f"{prefix}-{row}" for row in index],
            source=source,
            weight=weight,
        )

    def named(self, bundle: Bundle, rows: Sequence[int]) -> NDArray[np.int32]:
        """The digits of rows as class indices of a version."""
        names = bundle.manifest.classes or []
        digits = self.two.targets[list(rows)]
        return np.array([names.index(str(digit)) for digit in digits], np.int32)

    def forget(self, bundle: Bundle, *ids: str) -> None:
        memory = opened(bundle, self.folder)
        for id in ids:
            assert memory.forget(id)
        memory.close()

    def rebase(self, **options: Any) -> Rebased:
        return rebase(
            self.two.old,
            self.two.new,
            states=self.folder,
            **{"progress": Silent(), "batch_rows": 64, **options},
        )

    def ids(self, bundle: Bundle) -> list[str]:
        return [row[0] for row in stored(bundle, self.folder)]


@pytest.fixture
def states(digits_twice: TwoVersions, tmp_path: Path) -> States:
    return States.taught(digits_twice, tmp_path / "states")


@pytest.fixture(scope="module")
def taught(digits_twice: TwoVersions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `states` are, once for the tests that only need a copy."""
    return States.taught(digits_twice, tmp_path_factory.mktemp("taught")).folder


@pytest.fixture(scope="module")
def uninterrupted(digits_twice: TwoVersions, taught: Path, tmp_path_factory: Any) -> list[Any]:
    """What a run without a break makes of `taught`, by sixteens."""
    folder = tmp_path_factory.mktemp("whole") / "states"
    shutil.copytree(taught, folder)
    States(digits_twice, folder).rebase(batch_rows=16)
    return stored(digits_twice.new, folder)


def test_what_version_1_was_taught_corrects_version_2(
    digits_twice: TwoVersions, tmp_path: Path
) -> None:
    """The digits that version 2 gets wrong by itself, taught to version 1 before it existed."""
    two = digits_twice
    rows = Rows({"pixels": two.inputs})
    states = States(two, tmp_path)
    right = states.named(two.new, range(len(two.inputs)))
    alone = ResidualMemory.open(
        None, fitted=two.new.memories_path, shape=two.new.manifest.memory_shape()
    )
    wrong = np.flatnonzero(scores(two.new, alone, rows).argmax(axis=1) != right)
    assert len(wrong) > 20
    teach(
        two.old,
        tmp_path,
        two.inputs[wrong],
        two.targets[wrong],
        ids=[f"id-{row}" for row in wrong],
        weight=50.0,
    )
    rebased = states.rebase()
    assert rebased.carried == rebased.totals.carried == len(wrong)
    served = opened(two.new, tmp_path)
    found = scores(two.new, served, Rows({"pixels": two.inputs[wrong]}))
    assert (found.argmax(axis=1) == right[wrong]).mean() > 0.95
    # The first neighbour of each is the memory itself, under its old id.
    output = BaseModel(two.new.model_path, inputs=two.new.manifest.inputs).run(rows)
    correction = served.correct(output.embeddings[wrong], two.new.manifest.parameters.rule())
    first = served.records.describe(correction.sequences[:, 0].tolist())
    assert [record.id if record else None for record in first] == [f"id-{row}" for row in wrong]
    served.close()


def test_everything_but_embedding_and_residual_stays(states: States) -> None:
    before = stored(states.two.old, states.folder)
    states.rebase()
    assert stored(states.two.old, states.folder) == before
    after = stored(states.two.new, states.folder)
    assert len(after) == _TAUGHT
    for old, new in zip(before, after, strict=True):
        (id, _, source, weight, created_ms, target, encoded, embedding, residual) = old
        assert new[:1] + new[2:5] + new[6:7] == (id, source, weight, created_ms, encoded)
        assert isinstance(target, int)
        assert new[5] == 9 - target
        assert new[7] != embedding
        assert new[8] != residual


def test_a_second_run_finds_nothing_to_do_and_then_what_came(states: States) -> None:
    states.rebase()
    before = stored(states.two.new, states.folder)
    again = states.rebase()
    assert (again.carried, again.forgotten, again.totals.carried) == (0, 0, _TAUGHT)
    assert stored(states.two.new, states.folder) == before
    states.teach(states.two.old, range(300, 310))
    states.teach(states.two.old, range(5, 6), weight=9.0)  # replaced
    states.forget(states.two.old, "id-7", "id-299")
    more = states.rebase()
    assert (more.carried, more.forgotten, more.totals.carried) == (11, 3, 308)
    ids = states.ids(states.two.new)
    assert len(ids) == len(set(ids)) == 308
    assert {"id-7", "id-299"}.isdisjoint(ids)
    assert ids[-1] == "id-5"


def test_both_versions_were_taught(states: States) -> None:
    """What is there stays, the same id included; what is missing comes."""
    states.teach(states.two.new, range(290, 320), weight=7.0)
    rebased = states.rebase()
    assert rebased.totals == (290, 10, 0)
    after = {row[0]: row for row in stored(states.two.new, states.folder)}
    assert len(after) == 320
    assert {after[f"id-{row}"][3] for row in range(290, 320)} == {7.0}
    assert states.rebase().carried == 0


def test_a_server_that_runs_takes_it_up(states: States) -> None:
    served = opened(states.two.new, states.folder)
    fitted = served.size
    states.rebase()
    rows = Rows({"pixels": states.two.inputs[:1]})
    output = BaseModel(states.two.new.model_path, inputs=states.two.new.manifest.inputs).run(rows)
    rule = states.two.new.manifest.parameters.rule()
    (first, *_), = served.correct(output.embeddings, rule).sequences.tolist()  # fmt: skip
    assert first > 0
    assert served.size == fitted + _TAUGHT
    served.close()


def test_version_1_learns_and_forgets_while_it_is_rebased(
    states: States, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A last pass brings what came during the first, or during the building of the graph."""
    seal = Takeover.seal

    def busy(takeover: Takeover, announce: Callable[[int], None], options: MemoryOptions) -> int:
        states.teach(states.two.old, range(300, 305))
        states.forget(states.two.old, "id-0")
        return seal(takeover, announce, options)

    monkeypatch.setattr(Takeover, "seal", busy)
    rebased = states.rebase()
    assert (rebased.carried, rebased.forgotten, rebased.totals.carried) == (305, 1, 304)
    assert states.ids(states.two.new) == [f"id-{row}" for row in range(1, 305)]


def test_memories_of_the_bundle(states: States) -> None:
    """Forgotten ones come back, and an id such as theirs harms no memory of the new bundle."""
    states.forget(states.two.old, "fit-3", "fit-4")
    states.teach(states.two.old, range(5, 6), prefix="fit")  # replaces fit-5 there
    rebased = states.rebase()
    assert (rebased.fitted_forgotten, rebased.fitted_names) == (3, 1)
    served = opened(states.two.new, states.folder)
    assert served.size == states.two.new.manifest.memories + _TAUGHT + 1
    assert served.records.find("fit-5").sequence > 0
    assert served.records.find("fit-3").sequence < 0
    served.close()


@contextmanager
def changed(bundle: Bundle, folder: Path, **values: Any) -> Iterator[Bundle]:
    """A copy whose manifest says something else."""
    copy = folder / "changed" / bundle.manifest.version
    shutil.copytree(bundle.path, copy)
    (copy / "manifest.json.sha256").unlink()
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, **values}))
    yield Bundle.open(copy)


def test_a_class_that_is_gone_stops_it_or_is_left_out(states: States, tmp_path: Path) -> None:
    names = ["other" if name == "8" else name for name in states.two.new.manifest.classes or []]
    eights = [row for row in range(_TAUGHT) if states.two.targets[row] == 8]
    listener = Listener()
    with changed(states.two.new, tmp_path, classes=names) as new:

        def run(*, skip_unfit: bool) -> Rebased:
            return rebase(
                states.two.old,
                new,
                states=states.folder,
                progress=listener,
                skip_unfit=skip_unfit,
                batch_rows=64,
            )

        with pytest.raises(BundleError, match=f"'id-{eights[0]}'.*class '8'.*more.*--skip-unfit"):
            run(skip_unfit=False)
        assert not (states.folder / "digits/2").exists()
        assert listener.lines == ["version 2 does not have these classes: 8"]
        rebased = run(skip_unfit=True)
        assert rebased.totals == (_TAUGHT - len(eights), 0, len(eights))
        left_out = [line.split("'")[1] for line in listener.lines if line.startswith("left out")]
        assert left_out == [f"id-{row}" for row in eights]
        # They are settled: another run does not meet them again.
        assert run(skip_unfit=False).totals == rebased.totals


def test_what_cannot_be(states: States, digits_twice: TwoVersions, tmp_path: Path) -> None:
    two = digits_twice
    with pytest.raises(BundleError, match="version 1 has its own memories"):
        rebase(two.old, two.old, states=states.folder, progress=Silent())
    with pytest.raises(BundleError, match="version 1 was never taught"):
        rebase(two.old, two.new, states=tmp_path / "elsewhere", progress=Silent())
    with changed(
        two.new, tmp_path, inputs=[{"name": "x", "dtype": "float32", "shape": [3]}]
    ) as new:
        (new.path / "base.onnx").write_bytes(b"")
        with pytest.raises(CorruptFile, match=r"base\.onnx"):
            rebase(two.old, new, states=states.folder, progress=Silent())
    assert [path.name for path in (states.folder / "digits").iterdir()] == ["1"]


def test_a_damaged_memory_is_named(states: States) -> None:
    journal = states.folder / "digits/1/journal.sqlite3"
    execute(journal, "UPDATE memories SET input = x'01' WHERE id = 'id-70'")
    with pytest.raises(CorruptFile, match="id-70"):
        states.rebase()
    states.forget(states.two.old, "id-70")
    assert states.rebase().totals.carried == _TAUGHT - 1


KILLED = """
import os, signal, sys
from resmem_service.cli import main
from resmem_service.migrate import takeover
from resmem_service.memory.journal.sqlite.takeover import SqliteTakeover

place, after, *arguments = sys.argv[1:]
owner, name = {
    "commit": (SqliteTakeover, "carry"),
    "check": (takeover.Takeover, "check"),
    "renaming": (takeover.Takeover, "publish"),
    "build": (takeover.SegmentBuilder, "_build"),
}[place.split("-")[1]]
real, calls = getattr(owner, name), 0

def dying(*args, **kwargs):
    global calls
    calls += 1
    if calls == int(after) and place.startswith("before"):
        os.kill(os.getpid(), signal.SIGKILL)
    result = real(*args, **kwargs)
    if calls == int(after):
        os.kill(os.getpid(), signal.SIGKILL)
    return result

setattr(owner, name, dying)
if place.endswith("build"):
    from resmem_service import place as places
    places.memory_options = lambda *_: takeover.MemoryOptions(growing_bytes=1)
main(arguments)
"""


def arguments(two: TwoVersions, folder: Path) -> list[str]:
    options = ["--store", str(two.store), "--state-dir", str(folder), "--batch-rows", "16"]
    return ["rebase", "--model", "digits/2", "--from", "1", *options]


@pytest.mark.parametrize(
    ("place", "after", "done"),
    [
        ("before-commit", 8, 7 * 16),
        ("after-commit", 8, 8 * 16),
        ("before-renaming", 1, _TAUGHT),
        ("after-renaming", 1, _TAUGHT),
    ],
)
def test_killed_and_gone_on_with(
    digits_twice: TwoVersions,
    taught: Path,
    uninterrupted: list[Any],
    tmp_path: Path,
    place: str,
    after: int,
    done: int,
) -> None:
    """By SIGKILL, in a process of its own; the result is that of a run without a break."""
    folder = Path(shutil.copytree(taught, tmp_path / "states"))
    before = stored(digits_twice.old, folder)
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, place, str(after), *arguments(digits_twice, folder)],
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    published = place == "after-renaming"
    assert (folder / "digits/2").exists() == published
    listener = Listener()
    again = States(digits_twice, folder).rebase(batch_rows=16, progress=listener)
    assert again.carried == _TAUGHT - done
    assert listener.lines == (
        [f"going on: {done} of {_TAUGHT} memories are done"] if done < _TAUGHT else []
    )
    assert stored(digits_twice.new, folder) == uninterrupted
    assert stored(digits_twice.old, folder) == before
    assert sorted(path.name for path in (folder / "digits").iterdir()) == ["1", "2"]


def test_killed_while_the_graph_is_built(
    digits_twice: TwoVersions,
    taught: Path,
    uninterrupted: list[Any],
    tmp_path: Path,
) -> None:
    folder = Path(shutil.copytree(taught, tmp_path / "states"))
    command = [sys.executable, "-c", KILLED, "after-build", "1", *arguments(digits_twice, folder)]
    ended = subprocess.run(command, timeout=_PATIENCE_S, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert (folder / "digits/.rebase-2/segments/.building").is_dir()
    listener = Listener()
    options = MemoryOptions(growing_bytes=1)
    States(digits_twice, folder).rebase(progress=listener, options=options)
    assert listener.lines == [f"building the graph of {_TAUGHT} memories"]
    assert stored(digits_twice.new, folder) == uninterrupted
    assert not (folder / "digits/2/segments/.building").exists()
    served = opened(digits_twice.new, folder)
    assert served.statistics().growing_rows == 0
    assert served.size == digits_twice.new.manifest.memories + _TAUGHT
    served.close()


def test_killed_at_any_instant(
    digits_twice: TwoVersions, taught: Path, uninterrupted: list[Any], tmp_path: Path
) -> None:
    """The command itself, from outside, as soon as something of its work shows."""
    folder = Path(shutil.copytree(taught, tmp_path / "states"))
    hidden = folder / "digits/.rebase-2/journal.sqlite3-wal"
    with subprocess.Popen(
        [sys.executable, "-m", "resmem_service", *arguments(digits_twice, folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        while process.poll() is None and not (hidden.exists() and hidden.stat().st_size > 200_000):
            time.sleep(0.001)
        process.kill()
    States(digits_twice, folder).rebase(batch_rows=16)
    assert stored(digits_twice.new, folder) == uninterrupted


def test_a_regression(diabetes: FittedModel, tmp_path: Path) -> None:
    with changed(diabetes.bundle, tmp_path, version="2") as new:
        teach(
            diabetes.bundle,
            tmp_path,
            diabetes.inputs[:50],
            diabetes.targets[:50].astype(np.float32),
            ids=[f"id-{row}" for row in range(50)],
        )
        rebased = rebase(diabetes.bundle, new, states=tmp_path, progress=Silent(), provider="cpu")
        assert rebased.totals == (50, 0, 0)
        # The same network: nothing may change at all.
        assert stored(new, tmp_path) == stored(diabetes.bundle, tmp_path)


def test_of_the_old_version_the_manifest_is_enough(states: States, tmp_path: Path) -> None:
    store = tmp_path / "store/digits/1"
    store.mkdir(parents=True)
    shutil.copy(states.two.old.path / "manifest.json", store)
    old = ModelStore(tmp_path / "store").resolve("digits/1")
    rebased = rebase(old, states.two.new, states=states.folder, progress=Silent())
    assert rebased.totals.carried == _TAUGHT
