from resmem_service.bundle.manifest import CodecTrial, Interval, ScoreTable
from resmem_service.fit.report import render_choice, render_codecs, render_scores

from tests.conftest import FittedModel


def test_scores_are_a_table_that_says_what_the_rows_were(digits: FittedModel) -> None:
    first = digits.bundle.manifest.scores[0]
    second = first.model_copy(update={"held_out": "test", "rows": 10_000})
    lines = render_scores([first, second]).splitlines()
    assert lines[0] == "accuracy, % [95 % interval]"
    assert lines[1].split() == ["held-out", "rows", "base", "plain", "kNN", "ResMem"]
    assert lines[2].startswith(f"leave-one-out, {first.rows}")
    assert f"{100 * first.resmem.value:.1f} [" in lines[2]
    assert lines[3].startswith("test, 10,000")
    assert "optimistic" in lines[4]
    assert lines[5] == "test: rows that nothing was chosen on."
    assert len({len(line) for line in lines[1:4]}) == 1


def test_errors_keep_their_unit() -> None:
    interval = Interval(value=53.751, low=47.4, high=60.2)
    table = ScoreTable(
        held_out="unseen", rows=111, metric="rmse", base=interval, knn=interval, resmem=interval
    )
    text = render_scores([table])
    assert text.startswith("RMSE [95 %")
    assert "53.75 [47.4, 60.2]" in text


def test_the_choice_names_every_parameter(digits: FittedModel, diabetes: FittedModel) -> None:
    manifest = digits.bundle.manifest
    text = render_choice(manifest)
    assert text.startswith(f"900 memories; embedding hidden0, {manifest.embedding.dim} axes")
    for word in ("k ", "sigma ", "T ", "alpha ", "ef ", "recall ", "teaching weight "):
        assert word in text
    assert " T " not in render_choice(diabetes.bundle.manifest)


def test_codecs_are_a_table_with_a_reason(digits: FittedModel, diabetes: FittedModel) -> None:
    manifest = digits.bundle.manifest
    lines = render_codecs(manifest).splitlines()
    assert lines[0].split("  ")[0] == "residuals as"
    assert "accuracy, %" in lines[0]
    assert "dropped" not in lines[0]
    assert lines[1].split()[:4] == ["float32", "<-", "40", f"{manifest.codecs[0].memory_bytes:.0f}"]
    assert lines[2].split()[:2] == ["float16", "20"]
    assert lines[3].startswith("450 reporting rows; float32: residuals are ")
    assert len({len(line) for line in lines[:3]}) == 1
    assert "RMSE" in render_codecs(diabetes.bundle.manifest).splitlines()[0]


def test_codecs_that_drop_classes_say_how_much(digits: FittedModel) -> None:
    manifest = digits.bundle.manifest
    top = manifest.codecs[1].model_dump() | {
        "name": "top-2",
        "dropped_mean": 0.0123,
        "dropped_p99": 0.2,
    }
    trials = [*manifest.codecs, CodecTrial.model_validate(top)]
    lines = render_codecs(manifest.model_copy(update={"codecs": trials})).splitlines()
    assert "dropped, %" in lines[0]
    assert lines[3].split()[-2:] == ["1.23", "20.00"]
    assert len({len(line) for line in lines[:4]}) == 1
