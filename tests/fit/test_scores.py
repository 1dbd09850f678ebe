import numpy as np
import pytest
from resmem_service.fit.neighbours import Neighbours
from resmem_service.fit.scores import (
    Answers,
    Marks,
    held_out_answers,
    label_votes,
    score_table,
    votes,
)
from resmem_service.fit.tuning import Outputs, Setting
from resmem_service.inference.residuals import Task

from tests.fit.examples import digits_rows, linear_rows
from tests.fit.models import Array
from tests.fit.reference import base_of, score_of

SETTINGS = [
    Setting(k=1, sigma=1.0, temperature=1.0, alpha=0.0),
    Setting(k=7, sigma=1e-4, temperature=1.4, alpha=0.0),
    Setting(k=20, sigma=3.0, temperature=0.7, alpha=2.0),
]


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_answers_are_those_of_the_formula(setting: Setting, task: Task) -> None:
    queries, near, memories = digits_rows() if task == "classification" else linear_rows()
    (answers,) = held_out_answers(queries, near, memories, task, setting)
    np.testing.assert_array_equal(answers.targets, queries.targets)
    for row in range(len(queries.logits)):
        found = near.rows[row], near.distances[row]
        if setting.alpha == 0:  # the plain formula overflows where sigma is tiny: shift it
            found = near.rows[row], near.distances[row] - near.distances[row, 0]
        expected = score_of(queries, row, memories, *found, setting)
        scale = 1e-5 * (1 + np.abs(expected).max())
        np.testing.assert_allclose(answers.resmem[row], expected, atol=scale)
        np.testing.assert_allclose(answers.base[row], base_of(queries, row, setting), atol=scale)


def test_plain_votes_are_the_weighted_labels() -> None:
    queries, near, memories = digits_rows()
    setting = Setting(k=7, sigma=2.0, temperature=1.0, alpha=5.0)
    (answers,) = held_out_answers(queries, near, memories, "classification", setting)
    knn = answers.knn
    np.testing.assert_allclose(knn.sum(axis=1), 1, atol=1e-6)
    weights = np.exp(-near.distances[:, :7] / 2.0)
    weights /= weights.sum(axis=1, keepdims=True)
    expected = np.einsum("qk,qkl->ql", weights, np.eye(10)[memories.targets[near.rows[:, :7]]])
    np.testing.assert_allclose(knn, expected, atol=1e-6)
    numbers = label_votes(weights, memories.logits[near.rows[:, :7]], 10)
    expected = np.einsum("qk,qkl->ql", weights, memories.logits[near.rows[:, :7]])
    np.testing.assert_allclose(numbers, expected, rtol=1e-5, atol=1e-5)


def test_far_memories_have_no_vote_with_shrinkage_and_share_it_without() -> None:
    far = Neighbours(np.array([[0, 1]]), np.array([[1e9, 1e9]]))
    assert votes(far, Setting(2, 1.0, 1.0, alpha=0.1)).tolist() == [[0.0, 0.0]]
    assert votes(far, Setting(2, 1.0, 1.0, alpha=0.0)).tolist() == [[0.5, 0.5]]


def marks_right(right: int, rows: int) -> Marks:
    targets = np.zeros(rows, np.int32)
    scores = np.zeros((rows, 2), np.float32)
    scores[:right, 0], scores[right:, 1] = 1, 1
    return Marks.of([Answers(scores, scores, scores, targets)])


@pytest.mark.parametrize(
    ("right", "rows", "low", "high"),
    # From scipy.stats.binomtest(right, rows).proportion_ci(method="wilson").
    [(90, 100, 0.8256343384950865, 0.9447708629393249), (0, 10, 0.0, 0.2775327998628892)],
)
def test_accuracy_has_wilsons_interval(right: int, rows: int, low: float, high: float) -> None:
    marks = marks_right(right, rows)
    table = score_table(marks, "unseen")
    assert (table.held_out, table.rows, table.metric) == ("unseen", rows, "accuracy")
    assert table.resmem.value == right / rows
    assert table.resmem.low == pytest.approx(low, abs=1e-9)
    assert table.resmem.high == pytest.approx(high, abs=1e-9)
    assert marks.wrong().sum() == rows - right


def test_rmse_has_a_bootstrap_interval() -> None:
    random = np.random.default_rng(0)
    targets = random.normal(size=(2000, 1)).astype(np.float32)
    guess: Array = targets + random.normal(0, 2, targets.shape).astype(np.float32)
    marks = Marks.of([Answers(guess, targets, guess, targets)])
    table = score_table(marks, "test")
    assert table.metric == "rmse"
    assert table.knn.value == table.knn.high == 0
    assert table.base == table.resmem
    # The standard error of a deviation of normal errors is s / sqrt(2 n).
    error = 2 / np.sqrt(2 * 2000)
    assert table.base.value == pytest.approx(2, abs=3 * error)
    assert table.base.high - table.base.low == pytest.approx(2 * 1.96 * error, rel=0.2)
    assert marks.wrong().all()


def test_targets_of_several_numbers_count_alike() -> None:
    targets = np.zeros((10, 2), np.float32)
    guess = np.tile(np.array([3.0, 4.0], np.float32), (10, 1))
    table = score_table(Marks.of([Answers(guess, guess, guess, targets)]), "test")
    assert table.base.value == pytest.approx(np.sqrt((9 + 16) / 2))


def test_outputs_are_taken_apart_by_row() -> None:
    queries, _, _ = digits_rows()
    some = queries.part(np.array([3, 1]))
    assert isinstance(some, Outputs)
    np.testing.assert_array_equal(some.targets, queries.targets[[3, 1]])


def test_answers_in_small_batches_are_marked_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, near, memories = digits_rows()
    setting = Setting(k=7, sigma=2.0, temperature=1.0, alpha=0.0)
    whole = Marks.of(held_out_answers(queries, near, memories, "classification", setting))
    monkeypatch.setattr("resmem_service.fit.batches.CELLS", 7 * 10 * 4)
    answers = list(held_out_answers(queries, near, memories, "classification", setting))
    assert [len(batch.base) for batch in answers] == [4] * 15
    marks = Marks.of(answers)
    for name in ("base", "knn", "resmem"):
        np.testing.assert_array_equal(getattr(marks, name), getattr(whole, name))
