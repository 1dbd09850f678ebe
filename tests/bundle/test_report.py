from service.bundle.manifest import Interval, ScoreTable
from service.bundle.report import render_choice, render_scores
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
