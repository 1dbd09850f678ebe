import numpy as np
import pytest
from resmem_service.fit.neighbours import Neighbours
from resmem_service.fit.tuning import Grid, Outputs, Setting, Trials, choose, score_grid

from tests.fit.examples import digits_rows, linear_rows
from tests.fit.reference import score_of

GRID = Grid(ks=(1, 4, 20), sigmas=(0.03, 0.5), temperatures=(0.7, 2.0), alphas=(0.0, 0.3, 1.0))


def test_every_setting_of_a_classification_scores_as_the_formula_says() -> None:
    queries, near, memories = digits_rows()
    trials = score_grid(queries, near, memories, "classification", GRID)
    assert len(trials.settings) == 3 * 2 * 2 * 3
    assert len(set(trials.settings)) == len(trials.settings)
    for setting, errors, loss in zip(trials.settings, trials.errors, trials.losses, strict=True):
        wrong, brier = 0, 0.0
        for row in range(trials.rows):
            scores = score_of(queries, row, memories, near.rows[row], near.distances[row], setting)
            wrong += int(scores.argmax() != queries.targets[row])
            brier += float(np.square(scores - np.eye(10)[queries.targets[row]]).sum())
        assert errors == wrong
        assert loss == pytest.approx(brier / trials.rows, rel=1e-4)


def test_every_setting_of_a_regression_scores_as_the_formula_says() -> None:
    queries, near, memories = linear_rows()
    trials = score_grid(queries, near, memories, "regression", GRID)
    assert {setting.temperature for setting in trials.settings} == {1.0}
    deviations = memories.targets.std(axis=0)
    for setting, errors, loss in zip(trials.settings, trials.errors, trials.losses, strict=True):
        expected = np.mean(
            [
                np.square(
                    (
                        score_of(
                            queries, row, memories, near.rows[row], near.distances[row], setting
                        )
                        - queries.targets[row]
                    )
                    / deviations
                ).sum()
                for row in range(trials.rows)
            ]
        )
        assert errors == 0
        assert loss == pytest.approx(expected, rel=1e-4)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, near, memories = digits_rows()
    whole = score_grid(queries, near, memories, "classification", GRID)
    monkeypatch.setattr("resmem_service.fit.batches.CELLS", 1400)
    parts = score_grid(queries, near, memories, "classification", GRID)
    assert parts.errors == whole.errors
    np.testing.assert_allclose(parts.losses, whole.losses, rtol=1e-5)


def test_fewer_neighbours_than_any_k_are_all_used() -> None:
    queries, near, memories = digits_rows()
    few = Neighbours(near.rows[:, :3], near.distances[:, :3])
    grid = Grid(ks=(5, 10), sigmas=(1.0,), temperatures=(1.0,), alphas=(0.0,))
    trials = score_grid(queries, few, memories, "classification", grid)
    assert [setting.k for setting in trials.settings] == [3]


@pytest.mark.parametrize("distance", [0.0, 1e-30, 1e30])
def test_distances_that_are_all_alike_or_huge_do_no_harm(distance: float) -> None:
    queries, near, memories = digits_rows()
    alike = Neighbours(near.rows, np.full(near.rows.shape, distance))
    trials = score_grid(queries, alike, memories, "classification", GRID)
    assert np.isfinite(trials.losses).all()
    assert all(setting.sigma > 0 and np.isfinite(setting.alpha) for setting in trials.settings)


def trials_of(*scored: tuple[Setting, float, float], rows: int = 1000) -> Trials:
    settings, errors, losses = zip(*scored, strict=True)
    return Trials(rows, list(settings), list(errors), list(losses))


PLAIN = Setting(k=20, sigma=0.5, temperature=1.0, alpha=0.0)
SMALL = Setting(k=4, sigma=0.5, temperature=1.0, alpha=0.0)
WARM = Setting(k=20, sigma=0.5, temperature=2.0, alpha=0.0)
SHRUNK = Setting(k=4, sigma=0.5, temperature=1.0, alpha=0.1)


def test_accuracy_decides_beyond_the_noise() -> None:
    assert choose([trials_of((PLAIN, 100, 0.2), (SMALL, 120, 0.1))]) == (0, PLAIN)


def test_the_loss_decides_within_the_noise() -> None:
    assert choose([trials_of((PLAIN, 101, 0.20), (SMALL, 100, 0.21))]) == (0, PLAIN)


def test_the_simpler_wins_where_the_loss_is_about_the_same() -> None:
    assert choose([trials_of((PLAIN, 100, 0.2), (SMALL, 100, 0.2005))]) == (0, SMALL)
    assert choose([trials_of((SHRUNK, 100, 0.2), (PLAIN, 100, 0.2005))]) == (0, PLAIN)
    assert choose([trials_of((WARM, 100, 0.2), (PLAIN, 100, 0.2005))]) == (0, PLAIN)


def test_shrinkage_is_taken_where_it_helps() -> None:
    assert choose([trials_of((SHRUNK, 100, 0.19), (PLAIN, 100, 0.2))]) == (0, SHRUNK)


def test_an_earlier_embedding_wins_where_a_later_one_does_not_help() -> None:
    assert choose([trials_of((PLAIN, 100, 0.2001)), trials_of((SMALL, 100, 0.2))]) == (0, PLAIN)
    assert choose([trials_of((PLAIN, 130, 0.2)), trials_of((SMALL, 100, 0.2))]) == (1, SMALL)


def test_regression_goes_by_loss_alone() -> None:
    assert choose([trials_of((PLAIN, 0, 1.0), (SMALL, 0, 1.2))]) == (0, PLAIN)


def test_a_memory_that_misleads_is_not_used_more_than_it_must() -> None:
    """Labels that say nothing: the largest k with shrinkage beats few neighbours."""
    queries, near, memories = digits_rows()
    random = np.random.default_rng(0)
    noise = Outputs(memories.logits, random.permutation(memories.targets))
    _, chosen = choose([score_grid(queries, near, noise, "classification", GRID)])
    assert (chosen.k, chosen.alpha > 0) == (20, True)
