import numpy as np
import pytest
from resmem_service.errors import BundleError
from resmem_service.fit.transform import WIDEST, fit_map

from tests.fit.models import digits

X = digits()[0][:600] * 16 + 3
"""Digits as they are: some pixels never change."""
MOVING = X.std(axis=0) > 0


def test_none_changes_nothing() -> None:
    np.testing.assert_array_equal(fit_map("none", X).apply(X), X)


def test_standardised_axes_have_mean_0_and_deviation_1_and_constant_ones_are_silent() -> None:
    fitted = fit_map("standardise", X)
    mapped = fitted.apply(X)
    np.testing.assert_allclose(mapped.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(mapped.std(axis=0), MOVING, atol=1e-4)
    assert not MOVING.all()
    np.testing.assert_array_equal(fitted.apply(X + 50)[:, ~MOVING], mapped[:, ~MOVING])


def test_whitened_axes_are_uncorrelated_and_none_is_blown_up() -> None:
    fitted = fit_map("whiten", X)
    assert fitted.dim <= int(MOVING.sum())
    mapped = fitted.apply(X)
    covariance = np.cov(mapped.T)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-3)
    assert np.diag(covariance).max() <= 1.001
    np.testing.assert_allclose(np.diag(covariance)[:10], 1, atol=0.02)
    noise = np.random.default_rng(0).normal(0, 1e-3, X.shape).astype(np.float32)
    moved = np.linalg.norm(fitted.apply(X + noise) - mapped, axis=1)
    assert moved.max() < 0.1


def test_fewer_dimensions_keep_the_most_distance() -> None:
    fitted = fit_map("none", X, dim=20)
    mapped = fitted.apply(X)
    assert fitted.dim == 20
    far = np.linalg.norm(X[:100, None] - X[None, :100], axis=2)
    kept = np.linalg.norm(mapped[:100, None] - mapped[None, :100], axis=2)
    assert (kept <= far + 1e-3).all()
    assert np.corrcoef(far.ravel(), kept.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("kind", ["standardise", "whiten"])
def test_a_sample_does_for_many_rows(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resmem_service.fit.transform._SAMPLE", 500)
    whole = fit_map(kind, X)  # type: ignore[arg-type]
    many = np.repeat(X, 10, axis=0)
    sampled = fit_map(kind, many, dim=5)  # type: ignore[arg-type]
    again = fit_map(kind, many, dim=5)  # type: ignore[arg-type]
    np.testing.assert_array_equal(sampled.matrix, again.matrix)
    assert sampled.dim == 5
    assert whole.dim > 5


def test_rows_that_are_all_the_same_do_no_harm() -> None:
    same = np.tile(np.array([7.0, 0.1, -1e6, 0.0], np.float32), (30, 1))
    for kind in ("none", "standardise", "whiten"):
        mapped = fit_map(kind, same).apply(same)
        assert np.isfinite(mapped).all()
        assert mapped.std(axis=0).max() == pytest.approx(0, abs=1e-6)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(BundleError, match="--embedding-dim 65: the embedding has 64 axes"):
        fit_map("none", X, dim=65)
    wide = np.zeros((3, WIDEST + 1), np.float32)
    with pytest.raises(BundleError, match=f"has {WIDEST + 1} axes.*--embedding.*--whiten no"):
        fit_map("whiten", wide)
    assert fit_map("standardise", wide).dim == WIDEST + 1
