from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from resmem_service.bundle.manifest import Manifest
from resmem_service.errors import BundleError, InvalidInput
from resmem_service.inference.rows import Rows
from resmem_service.inference.tensor_spec import TensorSpec
from resmem_service.memory.journal.journal import MemoryRecord
from resmem_service.migrate.translation import Translation

from tests.conftest import FittedModel, TwoVersions

IMAGE = TensorSpec("image", "float32", (2, 3))
AGE = TensorSpec("age", "int64", ())


def changed(manifest: Manifest, **values: Any) -> Manifest:
    return manifest.model_copy(update={"version": "2", **values})


def record(target: int | list[float]) -> MemoryRecord:
    return MemoryRecord("id", 1, None, target, 1.0, 0)


def test_classes_go_by_name(digits_twice: TwoVersions) -> None:
    translation = Translation(digits_twice.old.manifest, digits_twice.new.manifest)
    assert translation.lost == []
    targets = translation.targets([record(0), record(1), record(9)])
    assert targets.dtype == np.int32
    assert targets.tolist() == [9, 8, 0]


def test_a_class_that_is_gone(digits: FittedModel) -> None:
    old = digits.bundle.manifest
    names = ["new" if name == "7" else name for name in old.classes or []]
    translation = Translation(old, changed(old, classes=names))
    assert translation.lost == ["7"]
    assert translation.targets([record(6)]).tolist() == [6]
    with pytest.raises(InvalidInput, match="version 2 does not have its class '7'"):
        translation.targets([record(6), record(7)])


@pytest.mark.parametrize("target", [10, -1])
def test_a_class_that_never_was(digits: FittedModel, target: int) -> None:
    old = digits.bundle.manifest
    with pytest.raises(InvalidInput, match=f"class '{target}'"):
        Translation(old, changed(old)).targets([record(target)])


def test_numbers_stay(diabetes: FittedModel) -> None:
    old = diabetes.bundle.manifest
    targets = Translation(old, changed(old)).targets([record([0.1]), record([2.5])])
    assert targets.dtype == np.float32
    assert targets.tolist() == [[np.float32(0.1)], [2.5]]


def test_inputs_go_by_name(digits: FittedModel) -> None:
    old = changed(digits.bundle.manifest, version="1", inputs=[IMAGE, AGE])
    new = changed(old, inputs=[replace(AGE, dtype="float32"), IMAGE])
    pixels = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    blobs = Rows({"image": pixels, "age": np.array([40])}).encode()
    rows = Translation(old, new).rows(blobs)
    assert list(rows.arrays) == ["age", "image"]
    assert rows.arrays["age"].dtype == np.float32
    assert rows.arrays["age"].tolist() == [40]
    assert rows.arrays["image"].tolist() == pixels.tolist()


def test_one_input_goes_by_any_name(digits: FittedModel) -> None:
    old = digits.bundle.manifest
    blobs = Rows({"pixels": digits.inputs[:3]}).encode()
    rows = Translation(old, changed(old, inputs=[TensorSpec("x", "float32", (64,))])).rows(blobs)
    assert rows.arrays["x"].tolist() == digits.inputs[:3].tolist()
    narrow = Translation(old, changed(old, inputs=[TensorSpec("x", "float32", (32,))]))
    with pytest.raises(InvalidInput, match="32"):
        narrow.rows(blobs)


def test_versions_that_have_nothing_in_common(digits: FittedModel, diabetes: FittedModel) -> None:
    classes, numbers = digits.bundle.manifest, diabetes.bundle.manifest
    with pytest.raises(BundleError, match="version 1 is a classification, version 2 a regression"):
        Translation(classes, changed(numbers))
    with pytest.raises(BundleError, match="version 1 has 1 outputs, version 2 3"):
        Translation(numbers, changed(numbers, outputs=3))
    with pytest.raises(BundleError, match="takes the inputs pixels, version 2 age, image"):
        Translation(classes, changed(classes, inputs=[IMAGE, AGE]))
