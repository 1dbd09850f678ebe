from dataclasses import fields

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from resmem_service.inference.predictions import Predictions
from resmem_service.memory.search.soft_knn import Correction


def of(first: int, n: int) -> Predictions:
    column = np.arange(first, first + n)[:, None]
    return Predictions(
        base=column.astype(np.float32),
        scores=column.astype(np.float32) + 1,
        embeddings=column.astype(np.float32) + 2,
        correction=Correction(
            residuals=column.astype(np.float32) + 3,
            sequences=column + 4,
            distances=column.astype(np.float64) + 5,
            weights=column.astype(np.float64) + 6,
        ),
        memory_size=first,
        revision=first,
    )


@given(lengths=st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_the_parts_of_a_request_join_in_order(lengths: list[int]) -> None:
    total = sum(lengths)
    whole = of(0, total)
    stops = np.cumsum(lengths).tolist()
    parts = [whole.slice(stop - length, stop) for stop, length in zip(stops, lengths, strict=True)]
    joined = Predictions.concatenate(parts)
    assert len(joined) == total
    for name in ("base", "scores", "embeddings"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))
    for field in fields(Correction):
        np.testing.assert_array_equal(
            getattr(joined.correction, field.name), getattr(whole.correction, field.name)
        )


def test_the_oldest_memory_that_had_a_say_is_the_one_reported() -> None:
    joined = Predictions.concatenate([of(3, 1), of(4, 1)])
    assert (joined.memory_size, joined.revision) == (3, 3)


def test_a_single_part_is_not_copied() -> None:
    one = of(0, 2)
    assert Predictions.concatenate([one]) is one
