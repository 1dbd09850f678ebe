import shutil
from pathlib import Path

import numpy as np
import pytest
from resmem_service.bundle.manifest import ScoreTable
from resmem_service.bundle.store import Bundle
from resmem_service.errors import BundleError, CorruptFile
from resmem_service.fit.dataset import read_rows
from resmem_service.fit.evaluate import evaluate
from resmem_service.progress import Silent

from tests.conftest import FittedModel
from tests.fit.models import Array


def score(fitted: FittedModel, path: Path, targets: Array | None = None) -> ScoreTable:
    wanted = fitted.targets if targets is None else targets
    np.savez(path / "test.npz", x=fitted.inputs[: len(wanted)], y=wanted)
    rows = read_rows(str(path / "test.npz"), fitted.bundle.manifest.inputs, target=None)
    return evaluate(fitted.bundle, rows, provider="cpu", progress=Silent(), batch_rows=100)


def test_a_classifier_is_scored_on_rows_it_never_saw(digits: FittedModel, tmp_path: Path) -> None:
    table = score(digits, tmp_path)
    assert (table.held_out, table.rows, table.metric) == ("test", 897, "accuracy")
    assert table.base.value < table.resmem.value
    assert table.knn.value > table.base.value - 0.05


def test_labels_may_be_names(digits: FittedModel, tmp_path: Path) -> None:
    names = np.array(digits.bundle.manifest.classes)
    assert score(digits, tmp_path, names[digits.targets]) == score(digits, tmp_path)


def test_a_regression_is_scored_by_its_error(diabetes: FittedModel, tmp_path: Path) -> None:
    table = score(diabetes, tmp_path)
    assert (table.rows, table.metric) == (142, "rmse")
    spread = float(diabetes.targets.std())
    assert table.knn.value < 1.2 * spread
    assert table.resmem.value < 1.2 * spread


def test_a_file_that_does_not_fit_is_refused(digits: FittedModel, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="the label '14' of row 0 is none of the 10 classes"):
        score(digits, tmp_path, digits.targets + 10)


def test_a_damaged_bundle_is_refused(digits: FittedModel, tmp_path: Path) -> None:
    copy = tmp_path / "1"
    shutil.copytree(digits.bundle.path, copy)
    (copy / "memories" / "residuals.npy").write_bytes(b"short")
    damaged = FittedModel(digits.store, Bundle.open(copy), digits.inputs, digits.targets)
    with pytest.raises(CorruptFile, match=r"residuals\.npy"):
        score(damaged, tmp_path)
