from pathlib import Path

import numpy as np
import pytest
from resmem_service.errors import BundleError
from resmem_service.fit.base_run import run_base
from resmem_service.inference.base_model import BaseModel
from resmem_service.inference.rows import Rows
from resmem_service.inference.tensor_spec import TensorSpec
from resmem_service.progress import Silent

from tests.conftest import FittedModel


def model_of(fitted: FittedModel, *specs: TensorSpec) -> BaseModel:
    inputs = specs or fitted.bundle.manifest.inputs
    return BaseModel(fitted.bundle.model_path, inputs=inputs, provider="cpu")


@pytest.mark.parametrize("batch_rows", [1, 7, 1000])
def test_batches_change_nothing(digits: FittedModel, batch_rows: int) -> None:
    rows = Rows({"pixels": digits.inputs[:20]})
    model = model_of(digits)
    parts, whole = list(run_base(model, rows, batch_rows, Silent())), model.run(rows)
    assert len(parts) == -(-20 // batch_rows)
    logits = np.concatenate([part.logits for part in parts])
    embeddings = np.concatenate([part.embeddings for part in parts])
    np.testing.assert_allclose(logits, whole.logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(embeddings, whole.embeddings, rtol=1e-4, atol=1e-4)


def test_refused_rows_are_named(digits: FittedModel, tmp_path: Path) -> None:
    assert tmp_path.exists()
    rows = Rows({"pixels": np.zeros((10, 63), np.float32)})
    with pytest.raises(BundleError, match="rows 0 to 3: the model refuses"):
        list(run_base(model_of(digits), rows, 4, Silent()))
