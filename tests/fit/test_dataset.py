from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from resmem_service.errors import BundleError
from resmem_service.fit.dataset import read_inputs, read_rows
from resmem_service.inference.tensor_spec import TensorSpec

from tests.fit.models import Array, digits

X, Y = digits()
X, Y = X[:40], Y[:40]
IMAGE = TensorSpec("image", "float32", (64,))
SQUARE = TensorSpec("image", "float32", (1, 8, 8))
TOP, BOTTOM = TensorSpec("top", "float32", (32,)), TensorSpec("bottom", "float32", (4, 8))


def npz(path: Path, **arrays: Array) -> str:
    np.savez(path / "rows.npz", allow_pickle=True, **arrays)
    return str(path / "rows.npz")


def parquet(path: Path, **columns: object) -> str:
    pq.write_table(pa.table(columns), path / "rows.parquet")
    return str(path / "rows.parquet")


@pytest.mark.parametrize("name", ["image", "x", "X", "inputs", "pixels"])
@pytest.mark.parametrize("target", ["y", "targets", "labels"])
def test_an_archive_is_read_by_its_usual_names(tmp_path: Path, name: str, target: str) -> None:
    read = read_rows(npz(tmp_path, **{name: X, target: Y}), [IMAGE], target=None)
    np.testing.assert_array_equal(read.rows.arrays["image"], X)
    np.testing.assert_array_equal(read.targets, Y)
    assert len(read) == 40


@pytest.mark.parametrize("labels", [{}, {"y": Y}])
def test_inputs_are_read_with_targets_or_without(tmp_path: Path, labels: dict[str, Array]) -> None:
    rows = read_inputs(npz(tmp_path, whatever=X, **labels), [IMAGE])
    np.testing.assert_array_equal(rows.arrays["image"], X)
    with pytest.raises(BundleError, match="nothing for the model's input 'bottom'"):
        read_inputs(npz(tmp_path, top=X[:, :32], **labels), [TOP, BOTTOM])


def test_the_right_key_wins_over_the_usual_ones(tmp_path: Path) -> None:
    source = npz(tmp_path, image=X, x=X + 1, y=Y, digit=Y + 1)
    read = read_rows(source, [IMAGE], target="digit")
    np.testing.assert_array_equal(read.rows.arrays["image"], X)
    np.testing.assert_array_equal(read.targets, Y + 1)


def test_several_inputs_are_keys_of_their_names(tmp_path: Path) -> None:
    source = npz(tmp_path, top=X[:, :32], bottom=X[:, 32:], y=Y)
    read = read_rows(source, [TOP, BOTTOM], target=None)
    np.testing.assert_array_equal(read.rows.arrays["bottom"], X[:, 32:].reshape(-1, 4, 8))
    with pytest.raises(
        BundleError, match=r"nothing for the model's input 'bottom', float32 \[4, 8\]; .*top \[40,"
    ):
        read_rows(npz(tmp_path, top=X[:, :32], y=Y), [TOP, BOTTOM], target=None)


@pytest.mark.parametrize("shape", [(64,), (8, 8), (8, 8, 1), (1, 8, 8)])
def test_flat_rows_and_missing_axes_of_one_take_the_models_shape(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    read = read_rows(npz(tmp_path, x=X.reshape(-1, *shape), y=Y), [SQUARE], target=None)
    np.testing.assert_array_equal(read.rows.arrays["image"], X.reshape(-1, 1, 8, 8))


def test_other_shapes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"rows\.npz: inputs: has shape \[40, 4, 16\]"):
        read_rows(npz(tmp_path, x=X.reshape(-1, 4, 16), y=Y), [SQUARE], target=None)
    with pytest.raises(BundleError, match=r"has shape \[40, 63\]"):
        read_rows(npz(tmp_path, x=X[:, :63], y=Y), [SQUARE], target=None)


def test_a_pair_of_files(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", X)
    np.save(tmp_path / "b.npy", Y)
    read = read_rows(f"{tmp_path}/a.npy,{tmp_path}/b.npy", [IMAGE], target=None)
    np.testing.assert_array_equal(read.rows.arrays["image"], X)
    with pytest.raises(BundleError, match=r"alone has no targets: give both.*a\.npy,y\.npy"):
        read_rows(f"{tmp_path}/a.npy", [IMAGE], target=None)


def test_columns_of_numbers_are_the_features_of_the_only_input(tmp_path: Path) -> None:
    columns = {f"p{at}": X[:, at].astype(np.float64) for at in range(64)}
    read = read_rows(parquet(tmp_path, **columns, label=Y), [IMAGE], target=None)
    np.testing.assert_array_equal(read.rows.arrays["image"], X)
    np.testing.assert_array_equal(read.targets, Y)


def test_columns_of_lists_are_inputs_in_the_models_shape(tmp_path: Path) -> None:
    nested = X.reshape(-1, 8, 8).tolist()
    fixed = pa.FixedSizeListArray.from_arrays(X.ravel(), 64)
    for column in (X.tolist(), nested, fixed):
        read = read_rows(parquet(tmp_path, image=column, y=Y), [SQUARE], target=None)
        np.testing.assert_allclose(read.rows.arrays["image"], X.reshape(-1, 1, 8, 8))


def test_columns_of_scalars_are_inputs_of_one_feature(tmp_path: Path) -> None:
    specs = [TensorSpec("age", "float32", (1,)), TensorSpec("rooms", "int64", ())]
    source = parquet(tmp_path, age=[1.5, 2.5], rooms=[3, 4], price=[1.0, 2.0])
    read = read_rows(source, specs, target="price")
    assert read.rows.arrays["age"].tolist() == [[1.5], [2.5]]
    assert read.rows.arrays["rooms"].tolist() == [3, 4]


def test_strings_and_categories_are_labels(tmp_path: Path) -> None:
    names = np.array(["nought", "one"])[Y % 2]
    categories = pa.array(names.tolist()).dictionary_encode()
    for column in (names.tolist(), categories):
        read = read_rows(parquet(tmp_path, x=X.tolist(), y=column), [IMAGE], target=None)
        np.testing.assert_array_equal(read.targets, names)
    read = read_rows(npz(tmp_path, x=X, y=names), [IMAGE], target=None)
    np.testing.assert_array_equal(read.targets, names)


def test_several_target_columns_stand_side_by_side(tmp_path: Path) -> None:
    source = npz(tmp_path, x=X, width=Y, height=Y * 2.5)
    read = read_rows(source, [IMAGE], target="height, width")
    np.testing.assert_array_equal(read.targets, np.stack([Y * 2.5, Y], axis=1))
    with pytest.raises(BundleError, match="has no 'depth'; it has: x, width, height"):
        read_rows(source, [IMAGE], target="depth")
    with pytest.raises(BundleError, match="name the targets with --target; it has: x, width"):
        read_rows(source, [IMAGE], target=None)


@pytest.mark.parametrize(("value", "noun"), [(np.nan, "NaN"), (-np.inf, "infinity")])
def test_what_is_not_finite_is_refused_with_its_row(
    tmp_path: Path, value: float, noun: str
) -> None:
    bad = X.copy()
    bad[[7, 9], 3] = value
    with pytest.raises(BundleError, match=rf"input 'image' holds {noun} in row 7 \(2 such rows\)"):
        read_rows(npz(tmp_path, x=bad, y=Y), [IMAGE], target=None)
    targets = Y.astype(np.float64)
    targets[5] = value
    with pytest.raises(BundleError, match=f"target 'y' holds {noun} in row 5"):
        read_rows(npz(tmp_path, x=X, y=targets), [IMAGE], target=None)


def test_what_a_dtype_cannot_hold_is_refused(tmp_path: Path) -> None:
    whole = TensorSpec("image", "int64", (64,))
    with pytest.raises(BundleError, match="row 0 holds the fraction"):
        read_rows(npz(tmp_path, x=X + 0.3, y=Y), [whole], target=None)
    with pytest.raises(BundleError, match=r"row 0 holds .*, out of the range of float32"):
        read_rows(npz(tmp_path, x=X.astype(np.float64) + 1e300, y=Y), [IMAGE], target=None)
    flags = read_rows(npz(tmp_path, x=X > 0.5, y=Y), [IMAGE], target=None)
    np.testing.assert_array_equal(flags.rows.arrays["image"], X > 0.5)


def test_lengths_must_agree(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="40 rows of inputs, but 39 targets"):
        read_rows(npz(tmp_path, x=X, y=Y[:39]), [IMAGE], target=None)
    with pytest.raises(BundleError, match="targets a, b differ in length"):
        read_rows(npz(tmp_path, x=X, a=Y, b=Y[:39]), [IMAGE], target="a,b")
    with pytest.raises(BundleError, match=r"rows\.npz has no rows"):
        read_rows(npz(tmp_path, x=X[:0], y=Y[:0]), [IMAGE], target=None)


def test_targets_are_one_label_or_some_numbers(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"'y' is float32 of shape \[40, 8, 8\]; expected one"):
        read_rows(npz(tmp_path, x=X, y=X.reshape(-1, 8, 8)), [IMAGE], target=None)


def test_missing_values_and_ragged_lists_are_refused_with_advice(tmp_path: Path) -> None:
    rows = X.tolist()
    with pytest.raises(BundleError, match="column 'y' has no value in row 1: fill it or drop"):
        read_rows(parquet(tmp_path, x=rows[:2], y=[1, None]), [IMAGE], target=None)
    ragged = [rows[0], rows[1][:10]]
    with pytest.raises(BundleError, match="column 'x' has lists of 10 to 64 elements"):
        read_rows(parquet(tmp_path, x=ragged, y=[1, 2]), [IMAGE], target=None)
    holed = [rows[0], [*rows[1][:63], None]]
    with pytest.raises(BundleError, match="column 'x' has lists with missing values"):
        read_rows(parquet(tmp_path, x=holed, y=[1, 2]), [IMAGE], target=None)
    structs = [{"a": 1}, {"a": 2}]
    with pytest.raises(BundleError, match="column 'x' is a struct"):
        read_rows(parquet(tmp_path, x=structs, y=[1, 2]), [IMAGE], target=None)


def test_files_that_are_none_are_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"there is no file .*missing\.npz; expected a \.npz"):
        read_rows(str(tmp_path / "missing.npz"), [IMAGE], target=None)
    for name in ("bad.npz", "bad.parquet", "bad.npy"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
    for source in ("bad.npz", "bad.parquet", f"bad.npy,{tmp_path}/bad.npy"):
        with pytest.raises(BundleError, match="cannot be read"):
            read_rows(f"{tmp_path}/{source}", [IMAGE], target=None)
    (tmp_path / "rows.csv").write_text("a,b\n")
    with pytest.raises(BundleError, match="unknown kind of file"):
        read_rows(f"{tmp_path}/rows.csv", [IMAGE], target=None)


def test_python_objects_are_not_unpickled(tmp_path: Path) -> None:
    objects = np.array(["a", None], dtype=object)
    with pytest.raises(BundleError, match=r"Python objects.*array\.astype\(str\)"):
        read_rows(npz(tmp_path, x=X[:2], y=objects), [IMAGE], target=None)


def test_parquet_without_pyarrow_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = parquet(tmp_path, x=X.tolist(), y=Y)
    monkeypatch.setattr("resmem_service.extra.installed", lambda _: False)
    with pytest.raises(BundleError, match=r"needs the package pyarrow.*resmem-service\[fit\]"):
        read_rows(source, [IMAGE], target=None)
