from pathlib import Path

import numpy as np
import pytest
from resmem_service.errors import BundleError
from resmem_service.fit.labels import Labels, decide_task, numbers, read_classes

from tests.fit.models import Array, diabetes, digits

Y = digits()[1]
NAMES = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])


def decide(targets: Array, width: int = 10, classes: list[str] | None = None) -> Labels:
    return Labels.decide(targets, width=width, classes=classes, source="train.npz")


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float64, np.str_])
def test_indices_in_any_dress(dtype: type) -> None:
    labels = decide(Y.astype(dtype))
    assert labels.names == tuple("0123456789")
    np.testing.assert_array_equal(labels.encode(Y.astype(dtype), "f"), Y)


def test_indices_may_leave_classes_out() -> None:
    labels = decide(Y[Y < 7])
    assert labels.names == tuple("0123456789")
    np.testing.assert_array_equal(labels.encode(Y, "f"), Y)


def test_names_are_sorted_unless_an_order_is_given() -> None:
    named = NAMES[Y]
    labels = decide(named)
    assert labels.names == tuple(sorted(NAMES))
    np.testing.assert_array_equal(np.array(labels.names)[labels.encode(named, "f")], named)
    labels = decide(named, classes=NAMES.tolist())
    np.testing.assert_array_equal(labels.encode(named, "f"), Y)


def test_names_given_serve_indices_too() -> None:
    labels = decide(Y, classes=NAMES.tolist())
    assert labels.names == tuple(NAMES)
    np.testing.assert_array_equal(labels.encode(Y, "f"), Y)


def test_numbers_that_are_names_are_looked_up() -> None:
    """Classes 1 to 3 in the model's own order: 1 is the name of output 2, no index."""
    labels = decide(np.array([1, 2, 3]), width=3, classes=["3", "2", "1"])
    assert labels.encode(np.array([1, 2, 3]), "f").tolist() == [2, 1, 0]
    labels = decide(np.array([3, 1, 2]), width=3)
    assert labels.names == ("1", "2", "3")
    assert labels.encode(np.array([3, 1, 2]), "f").tolist() == [2, 0, 1]


def test_truth_values_are_two_classes() -> None:
    labels = decide(Y > 4, width=2)
    np.testing.assert_array_equal(labels.encode(Y > 4, "f"), Y > 4)


def test_what_does_not_fit_the_outputs_is_said_with_advice() -> None:
    with pytest.raises(BundleError, match=r"10 distinct labels \(eight, five, .*--classes a,b,c"):
        decide(NAMES[Y], width=12)
    with pytest.raises(BundleError, match=r"train\.npz: 10 distinct labels .*--task regression"):
        decide(Y * 7, width=12)
    with pytest.raises(BundleError, match="2 classes, but the model has 10 outputs"):
        decide(Y, classes=["a", "b"])
    with pytest.raises(
        BundleError, match=r"the label 0\.5 of row 1 is not a class: use --task regr"
    ):
        decide(np.array([1.0, 0.5]), width=2)
    with pytest.raises(BundleError, match="3 values per label; expected one class per row"):
        decide(np.eye(3), width=3)


def test_an_unknown_label_names_its_row() -> None:
    labels = decide(NAMES[Y])
    with pytest.raises(BundleError, match=r"test\.npz: the label 'ten' of row 2 is none of the 10"):
        labels.encode(np.array(["one", "two", "ten"]), "test.npz")
    with pytest.raises(BundleError, match="the label '10' of row 1 is none of"):
        decide(Y).encode(np.array([1, 10]), "test.npz")
    with pytest.raises(BundleError, match="the label '-1' of row 0"):
        decide(Y).encode(np.array([-1, 1]), "test.npz")


def test_classes_are_read_from_a_file_or_from_the_option(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_text("T-shirt, top\nTrouser\n\n")
    assert read_classes(str(file)) == ["T-shirt, top", "Trouser"]
    assert read_classes("a, b,c") == ["a", "b", "c"]
    with pytest.raises(BundleError, match="neither a file"):
        read_classes("missing.txt")
    with pytest.raises(BundleError, match="'a' is named twice"):
        read_classes("a,b,a")


@pytest.mark.parametrize(
    ("targets", "width", "probabilities", "task"),
    [
        (NAMES[Y], 10, False, "classification"),
        (Y, 10, False, "classification"),
        (Y > 4, 1, False, "classification"),
        ((Y > 4).astype(np.int64), 1, False, "classification"),
        (Y, 1, False, "regression"),
        (Y.astype(np.float64), 1, True, "classification"),
        (Y.astype(np.float64), 10, False, "classification"),
        ((Y > 4).astype(np.float64), 1, False, "regression"),
        (diabetes()[1], 1, False, "regression"),
        (np.stack([Y, Y], axis=1), 2, False, "regression"),
    ],
)
def test_the_targets_tell_the_task(
    targets: Array, width: int, probabilities: bool, task: str
) -> None:
    assert decide_task(targets, width=width, probabilities=probabilities) == task


def test_numbers_have_a_column_for_each_output() -> None:
    targets = diabetes()[1]
    assert numbers(targets, width=1, source="f").shape == (442, 1)
    both = np.stack([targets, targets], axis=1)
    np.testing.assert_array_equal(numbers(both, width=2, source="f"), both.astype(np.float32))
    with pytest.raises(
        BundleError, match=r"f: 1 numbers per target, the model gives 2: .*--target"
    ):
        numbers(targets, width=2, source="f")
    with pytest.raises(BundleError, match=r"strings such as 'eight'.*--task classification"):
        numbers(np.array(["eight"]), width=1, source="f")
    with pytest.raises(BundleError, match="the target of row 1 overflows float32"):
        numbers(np.array([0.0, 1e39]), width=1, source="f")
