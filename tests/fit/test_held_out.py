import numpy as np
import pytest
from resmem_service.errors import BundleError
from resmem_service.fit.base_pass import Represented
from resmem_service.fit.held_out import leave_one_out, memory_rows, sample_size, unseen_halves
from resmem_service.fit.tuning import Outputs

from tests.fit.models import diabetes, digits


def represented(rows: int) -> Represented:
    x, y = digits()
    return Represented(Outputs(x[:rows, :10], y[:rows].astype(np.int32)), x[:rows])


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_all_rows_become_memories_unless_there_is_a_limit() -> None:
    rows = represented(100)
    assert memory_rows(rows, None, random()).tolist() == list(range(100))
    assert memory_rows(rows, 100, random()).tolist() == list(range(100))


def test_a_limit_keeps_the_share_of_each_class() -> None:
    x, y = digits()
    rare = np.concatenate([np.flatnonzero(y != 3), np.flatnonzero(y == 3)[:20]])
    rows = Represented(Outputs(x[rare, :10], y[rare].astype(np.int32)), x[rare])
    kept = memory_rows(rows, 400, random())
    assert len(set(kept.tolist())) == 400
    assert kept.tolist() == sorted(kept.tolist())
    share = 400 / len(rare)
    before, after = np.bincount(y[rare], minlength=10), np.bincount(y[rare][kept], minlength=10)
    np.testing.assert_allclose(after, before * share, atol=1.5)
    assert kept.tolist() != memory_rows(rows, 400, random(1)).tolist()


def test_a_limit_on_a_regression_is_a_plain_sample() -> None:
    x, y = diabetes()
    rows = Represented(Outputs(x[:, :1], y[:, None].astype(np.float32)), x)
    assert len(set(memory_rows(rows, 50, random()).tolist())) == 50


def test_no_row_chooses_and_reports_and_none_sees_its_own_memory() -> None:
    rows = represented(900)
    kept = memory_rows(rows, 600, random())
    held = leave_one_out(rows, kept, random(1))
    assert held.kind == "leave-one-out"
    assert len(held.choose.rows) == len(held.report.rows) == 450
    together = np.concatenate([held.choose.rows.embeddings, held.report.rows.embeddings])
    np.testing.assert_array_equal(np.sort(together, axis=0), np.sort(rows.embeddings, axis=0))
    for sample in (held.choose, held.report):
        assert sample.own is not None
        seen = sample.own >= 0
        assert 0 < seen.sum() < len(seen)
        own = rows.embeddings[kept][sample.own[seen]]
        np.testing.assert_array_equal(own, sample.rows.embeddings[seen])


def test_unseen_rows_are_halved() -> None:
    held = unseen_halves(represented(301), 900, random())
    assert held.kind == "unseen"
    assert (len(held.choose.rows), len(held.report.rows)) == (150, 151)
    assert held.choose.own is None


def test_the_report_of_unseen_rows_fits_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resmem_service.fit.held_out._REPORT_SCORES", 700)
    held = unseen_halves(represented(301), 900, random())
    assert (len(held.choose.rows), len(held.report.rows)) == (150, 70)


def test_the_sample_shrinks_where_the_work_would_grow() -> None:
    assert sample_size(represented(50), 60_000) == 5000
    assert sample_size(represented(50), 300_000) == 1000
    assert sample_size(represented(50), 10_000_000) == 500
    x = np.zeros((50, 1000), np.float32)
    wide = Represented(Outputs(x, np.zeros(50, np.int32)), x)
    assert sample_size(wide, 1000) == 2000


def test_a_few_rows_are_too_few() -> None:
    few = represented(19)
    with pytest.raises(BundleError, match=r"19 training rows are too few .*: at least 20"):
        leave_one_out(few, np.arange(19), random())
    with pytest.raises(BundleError, match="19 unseen rows are too few"):
        unseen_halves(few, 900, random())
