import numpy as np
import pytest
from resmem_service.bundle.manifest import CodecTrial
from resmem_service.fit.codec_trials import Evidence, bytes_beside_residual, try_codecs
from resmem_service.fit.tuning import Setting
from resmem_service.memory.search.codec import ResidualCodec
from resmem_service.progress import Silent

from tests.conftest import FittedModel
from tests.fit.examples import linear_rows
from tests.fit.reference import base_of, correction_of, residual_of
from tests.fit.wide import wide_rows

SETTING = Setting(k=10, sigma=2.0, temperature=1.4, alpha=0.5)


def evidence(setting: Setting = SETTING) -> Evidence:
    return Evidence(*wide_rows(), "classification", setting)


def tried(seen: Evidence, *names: str) -> list[CodecTrial]:
    codecs = [ResidualCodec.named(name) for name in ("float32", *names)]
    return try_codecs(codecs, seen, 500.0, Silent())


def test_changes_are_those_of_the_formula() -> None:
    seen = evidence()
    names = ("float16", "top-8", "top-64")
    trials = tried(seen, *names)
    assert [trial.name for trial in trials] == ["float32", *names]
    assert trials[0].largest_change == trials[0].mean_change == trials[0].score_change == 0
    scores: dict[str, list[np.ndarray]] = {trial.name: [] for trial in trials}
    for row in range(80):
        near, far = seen.near.rows[row].tolist(), seen.near.distances[row].tolist()
        exact = [residual_of(seen.memories, memory, SETTING) for memory in near]
        base = base_of(seen.report, row, SETTING)
        for name, parts in scores.items():
            codec = ResidualCodec.named(name)
            coded = codec.decode(codec.encode(np.array(exact, np.float32)), 1000)
            parts.append(base + correction_of(list(coded), far, [1.0] * 10, SETTING))
    whole = np.array(scores["float32"])
    for trial in trials:
        mine = np.array(scores[trial.name])
        changes = np.abs(mine - whole).max(axis=1)
        assert trial.largest_change == pytest.approx(changes.max(), abs=1e-6)
        assert trial.mean_change == pytest.approx(changes.mean(), abs=1e-6)
        right = mine.argmax(axis=1) == seen.report.targets
        assert trial.score == pytest.approx(right.mean())
        before = whole.argmax(axis=1) == seen.report.targets
        assert trial.turned_wrong == (before & ~right).sum()
        assert trial.turned_right == (~before & right).sum()
    assert 0 < trials[1].largest_change < 2.5e-4
    assert trials[3].largest_change < trials[2].largest_change


def test_dropped_mass_is_what_the_likeliest_leave() -> None:
    seen = evidence()
    dense, trial = tried(seen, "top-16")
    rows = [np.sort(base_of(seen.report, row, SETTING))[:-16].sum() for row in range(80)]
    assert trial.dropped_mean == pytest.approx(np.mean(rows), abs=1e-5)
    assert trial.dropped_p99 == pytest.approx(np.quantile(rows, 0.99), abs=1e-5)
    assert dense.dropped_mean is dense.dropped_p99 is None
    assert (trial.residual_bytes, trial.memory_bytes) == (8 + 16 * 4, 500 + 8 + 16 * 4)


def test_regression_is_judged_in_units_of_each_outputs_error() -> None:
    """The outputs are of very different sizes."""
    seen = Evidence(*linear_rows(), "regression", Setting(20, 0.5, 1.0, 0.0))
    whole, half = tried(seen, "float16")
    assert whole.largest_relative_change == 0
    assert half.turned_wrong is half.turned_right is half.dropped_mean is None
    assert half.largest_relative_change is not None
    assert 0 < half.largest_relative_change < 0.01
    assert half.score == pytest.approx(whole.score, rel=1e-4)


def test_answers_without_error_have_a_unit_all_the_same() -> None:
    queries, near, memories = linear_rows()
    perfect = type(queries)(queries.targets.copy(), queries.targets)
    known = type(memories)(memories.targets.copy(), memories.targets)
    seen = Evidence(perfect, near, known, "regression", Setting(20, 0.5, 1.0, 0.0))
    trial = tried(seen, "float16")[1]
    assert trial.score == trial.largest_relative_change == 0


def test_trials_are_bounded_and_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = evidence()
    assert seen.limited() is seen
    monkeypatch.setattr("resmem_service.fit.codec_trials._TABLE_CELLS", 300_000)
    monkeypatch.setattr("resmem_service.fit.codec_trials._FEWEST", 10)
    few = seen.limited()
    assert len(few.report.logits) == len(few.near.rows) == 30
    np.testing.assert_array_equal(few.near.rows[[0, -1]], seen.near.rows[[0, -1]])
    np.testing.assert_array_equal(few.report.targets[[0, -1]], seen.report.targets[[0, -1]])
    assert tried(seen, "float16")[0].rows == 30


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    together = tried(evidence(), "float16", "top-8")
    monkeypatch.setattr("resmem_service.fit.batches.CELLS", 70_000)
    apart = tried(evidence(), "float16", "top-8")
    for one, two in zip(together, apart, strict=True):
        assert one.largest_change == pytest.approx(two.largest_change, rel=1e-3)
        assert one.model_dump(exclude={"largest_change", "mean_change"}) == pytest.approx(
            two.model_dump(exclude={"largest_change", "mean_change"})
        )


def test_a_memory_takes_the_bytes_that_its_files_show(
    digits: FittedModel, diabetes: FittedModel
) -> None:
    for fitted in (digits, diabetes):
        manifest = fitted.bundle.manifest
        files = manifest.files.items()
        size = sum(entry.bytes for name, entry in files if name.startswith("memories/"))
        size -= manifest.files["memories/segment.json"].bytes + 4 * 128 + 96
        dim, width = manifest.embedding.dim, manifest.outputs
        beside = bytes_beside_residual(dim, width, manifest.task, 16)
        assert beside + 4 * width == pytest.approx(size / manifest.memories, rel=0.01)
        assert manifest.codecs[0].memory_bytes == pytest.approx(beside + 4 * width, abs=0.1)
