import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from resmem_service.fit.neighbours import nearest

from tests.fit.models import Array, digits

X = digits()[0]


def distances(queries: Array, memories: Array) -> Array:
    return np.asarray(np.linalg.norm(queries[:, None].astype(np.float64) - memories[None], axis=2))


def test_they_are_those_of_brute_force() -> None:
    found = nearest(X[:300], X[300:1300], 53)
    expected = distances(X[:300], X[300:1300])
    np.testing.assert_allclose(found.distances, np.sort(expected, axis=1)[:, :53], atol=1e-6)
    at = np.take_along_axis(expected, found.rows, axis=1)
    np.testing.assert_allclose(found.distances, at, atol=1e-6)


def test_no_row_is_its_own_neighbour() -> None:
    own = np.arange(500)
    own[::3] = -1
    found = nearest(X[:500], X[:500], 10, own=own)
    itself = found.rows == np.arange(500)[:, None]
    assert itself.any(axis=1).tolist() == [row % 3 == 0 for row in range(500)]


def test_copies_of_a_row_are_its_neighbours() -> None:
    memories = np.concatenate([X[:50], X[:1], X[:1]])
    found = nearest(X[:1], memories, 2, own=np.array([0]))
    assert sorted(found.rows[0].tolist()) == [50, 51]
    assert found.distances[0].tolist() == [0.0, 0.0]


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(2, 40),
    k=st.integers(1, 60),
    shift=st.sampled_from([0.0, 1e3, -1e4]),
    exclude=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_whatever_the_sizes_and_wherever_the_rows(
    count: int, k: int, shift: float, exclude: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    memories = (random.normal(size=(count, 3)) + shift).astype(np.float32)
    own = np.arange(count) if exclude else None
    found = nearest(memories, memories, k, own=own)
    expected = distances(memories, memories)
    if exclude:
        np.fill_diagonal(expected, np.inf)
    assert found.rows.shape == (count, min(k, count - exclude))
    np.testing.assert_allclose(
        found.distances, np.sort(expected, axis=1)[:, : found.rows.shape[1]], rtol=1e-4, atol=1e-3
    )
