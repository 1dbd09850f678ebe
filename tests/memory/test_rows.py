import numpy as np
import pytest
from resmem_service.memory.rows import SegmentRows

from tests.memory.examples import LABELS, PIXELS, RESIDUALS


def test_rows_that_would_ruin_a_graph_are_refused() -> None:
    bad = PIXELS[:5].copy()
    bad[3, 3] = np.nan
    ones, sequences = np.ones(5, np.float32), np.arange(5)
    with pytest.raises(ValueError, match="not finite"):
        SegmentRows(bad, RESIDUALS[:5], LABELS[:5], sequences, ones)
    with pytest.raises(ValueError, match="as many"):
        SegmentRows(PIXELS[:5], RESIDUALS[:4], LABELS[:5], sequences, ones)
    with pytest.raises(ValueError, match="needs rows"):
        SegmentRows(PIXELS[:0], RESIDUALS[:0], LABELS[:0], sequences[:0], ones[:0])


def test_parts_are_joined_in_order() -> None:
    def part(start: int, stop: int) -> SegmentRows:
        return SegmentRows(
            PIXELS[start:stop],
            RESIDUALS[start:stop],
            LABELS[start:stop],
            np.arange(start, stop),
            np.ones(stop - start, np.float32),
        )

    joined = SegmentRows.concatenate([part(0, 3), part(3, 4)])
    assert len(joined) == 4
    assert np.array_equal(joined.embeddings, PIXELS[:4])
    assert list(joined.sequences) == [0, 1, 2, 3]
