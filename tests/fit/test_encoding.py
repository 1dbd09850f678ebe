import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from resmem_service.fit.base_pass import Represented
from resmem_service.fit.encoding import encode_rows, largest_residual
from resmem_service.fit.scratch import Scratch
from resmem_service.fit.transform import fit_map
from resmem_service.fit.tuning import Setting
from resmem_service.memory.search.codec import ResidualCodec

from tests.fit.examples import linear_rows
from tests.fit.models import digits
from tests.fit.reference import residual_of
from tests.fit.wide import wide_rows

X, _ = digits()
OUTPUTS = wide_rows()[2]
ROWS = Represented(OUTPUTS, X[:600])


@pytest.mark.parametrize("name", ["float32", "float16", "top-8"])
def test_rows_of_all_parts_are_coded_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("resmem_service.fit.batches.CELLS", 130_000)
    codec = ResidualCodec.named(name)
    transform = fit_map("standardise", X, dim=None, seed=0)
    parts = [ROWS.part(slice(0, 400)), ROWS.part(slice(400, 600))]
    rows = encode_rows(parts, "classification", 1.4, transform, codec, Scratch(tmp_path))
    setting = Setting(1, 1.0, 1.4, 0.0)
    expected = np.array([residual_of(OUTPUTS, row, setting) for row in range(600)], np.float32)
    decoded = codec.decode(rows.residuals, 1000)
    bound = 2 * codec.dropped_mass(expected) + (1e-5 if name == "float32" else 2e-3)
    assert np.all(np.abs(decoded - expected).sum(axis=1) <= bound)
    np.testing.assert_array_equal(rows.targets, OUTPUTS.targets)
    np.testing.assert_array_equal(rows.embeddings, transform.apply(X[:600]))
    assert rows.sequences.tolist() == list(range(-1, -601, -1))
    assert set(rows.weights.tolist()) == {1.0}


def test_residuals_of_all_rows_are_never_held_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resmem_service.fit.batches.CELLS", 20_000)
    transform = fit_map("none", X, dim=None, seed=0)
    codec = ResidualCodec.named("float16")
    tracemalloc.start()
    try:
        encode_rows([ROWS], "classification", 1.0, transform, codec, Scratch(tmp_path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 0.5 * OUTPUTS.logits.nbytes


def test_the_largest_residual_of_any_part() -> None:
    _, _, memories = linear_rows()
    rows = Represented(memories, X[:300])
    residuals = np.abs(memories.targets - memories.logits)
    parts = [rows.part(slice(0, 10)), rows.part(slice(10, 300))]
    assert largest_residual(parts, "regression") == residuals.max()
    assert largest_residual([ROWS], "classification") == 1
