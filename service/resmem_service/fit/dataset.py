"""Labelled rows from a file: `.npz`, a pair of `.npy`, or Parquet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from resmem_service.array_file import read_archive, read_array
from resmem_service.errors import BundleError, CorruptFile, InvalidInput
from resmem_service.extra import require
from resmem_service.inference.rows import Rows
from resmem_service.inference.tensor_spec import TensorSpec

__all__ = ["LabelledRows", "read_inputs", "read_rows"]

_TARGET_NAMES: Final = ("y", "targets", "target", "labels", "label")
_INPUT_NAMES: Final = ("x", "X", "inputs", "input")
_FORMATS: Final = "a .npz file, a pair x.npy,y.npy, or a .parquet file"

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """n rows and their targets as the file has them, not yet read as classes or numbers."""

    rows: Rows
    targets: NDArray[Any]
    """`[n]` or `[n, m]`: numbers or strings, no NaN, none missing."""
    source: str
    """The file, for messages."""

    def __len__(self) -> int:
        return len(self.rows)


def read_rows(source: str, inputs: Sequence[TensorSpec], *, target: str | None) -> LabelledRows:
    """Read labelled rows for a model with these inputs.

    `source` is a path, or two joined by a comma (`x.npy,y.npy`). In a `.npz` or Parquet file the
    inputs are found by name; a model with one input also takes `x` or `inputs`, the only key that
    is left, or, from Parquet, all columns but the target's as its features. `target` names the
    key or column of the targets, several joined by commas; None looks for `y`, `targets`,
    `labels` and the like.

    Raises:
        BundleError: no such file or format, a missing key, values that do not fit the model, NaN
            or infinity; names the file, the input and the row, and says what to do.
    """
    columns = _read(source)
    keys = _target_keys(columns, target, source)
    features = {name: array for name, array in columns.items() if name not in keys}
    targets = _targets([columns[key] for key in keys], keys, source)
    rows = _rows(features, inputs, source)
    if len(rows) != len(targets):
        raise BundleError(f"{source}: {len(rows)} rows of inputs, but {len(targets)} targets")
    return LabelledRows(rows, targets, source)


def read_inputs(source: str, inputs: Sequence[TensorSpec]) -> Rows:
    """Read rows as `read_rows` does, but without targets, which the file may have or not.

    Raises:
        BundleError: see `read_rows`.
    """
    features = {name: array for name, array in _read(source).items() if name not in _TARGET_NAMES}
    return _rows(features, inputs, source)


def _rows(features: Columns, inputs: Sequence[TensorSpec], source: str) -> Rows:
    arrays: Columns = {}
    for spec in inputs:
        array = _shaped(_find(features, spec, len(inputs) == 1, source), spec)
        _refuse_not_finite(array, f"{source}: input {spec.name!r}")
        arrays[spec.name] = array
    try:
        return Rows.convert(arrays, inputs)
    except InvalidInput as error:
        raise BundleError(f"{source}: {error.field}: {error.message}") from error


def _read(source: str) -> Columns:
    parts = source.split(",")
    paths = [Path(part.strip()) for part in parts]
    for path in paths:
        if not path.is_file():
            raise BundleError(f"there is no file {path}; expected {_FORMATS}")
    suffixes = [path.suffix.lower() for path in paths]
    try:
        if suffixes == [".npy", ".npy"]:
            return {"x": read_array(paths[0]), "y": read_array(paths[1])}
        if suffixes == [".npy"]:
            raise BundleError(
                f"{source} alone has no targets: give both files, --data {source},y.npy"
            )
        if suffixes == [".npz"]:
            return read_archive(paths[0])
        if suffixes in ([".parquet"], [".pq"]):
            return _read_parquet(paths[0])
    except (CorruptFile, ValueError, OSError) as error:
        if "Object arrays" in str(error) or "Python objects" in str(error):
            raise BundleError(
                f"{source} holds Python objects, which are not read: save strings with "
                "array.astype(str), and ragged lists in arrays of one shape"
            ) from error
        raise BundleError(f"{source} cannot be read: {error}") from error
    raise BundleError(f"{source}: unknown kind of file; expected {_FORMATS}")


def _read_parquet(path: Path) -> Columns:
    require("pyarrow", f"reading {path}")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except pa.ArrowException as error:
        raise BundleError(f"{path} cannot be read: {error}") from error
    return {
        name: _of_arrow(table.column(name), f"{path}: column {name!r}")
        for name in table.schema.names
    }


def _of_arrow(column: Any, where: str) -> NDArray[Any]:
    """`[n]` for plain columns, `[n, m]` for columns of lists of one length, however nested."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if column.null_count:
        missing = np.asarray(column.is_null()).argmax()
        raise BundleError(f"{where} has no value in row {missing}: fill it or drop the row")
    values, rows = column.combine_chunks(), len(column)
    while pa.types.is_nested(values.type) and hasattr(values, "flatten"):
        if pa.types.is_struct(values.type):
            raise BundleError(f"{where} is a struct: store its fields as columns of their own")
        lengths = np.unique(np.asarray(values.value_lengths()))
        if len(lengths) > 1:
            raise BundleError(
                f"{where} has lists of {lengths[0]} to {lengths[-1]} elements: all rows must have "
                "one length"
            )
        values = values.flatten()
        if values.null_count:
            raise BundleError(f"{where} has lists with missing values: fill them or drop the rows")
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        array = np.array(values.to_pylist(), dtype=np.str_)
    else:
        array = values.to_numpy(zero_copy_only=False)
    return array if len(array) == rows else array.reshape(rows, -1)


def _target_keys(columns: Columns, target: str | None, source: str) -> list[str]:
    if target is not None:
        keys = [key.strip() for key in target.split(",")]
        for key in keys:
            if key not in columns:
                raise BundleError(f"{source} has no {key!r}; it has: {', '.join(columns)}")
        return keys
    for key in _TARGET_NAMES:
        if key in columns:
            return [key]
    raise BundleError(
        f"{source} has none of {', '.join(_TARGET_NAMES)}: name the targets with --target; "
        f"it has: {', '.join(columns)}"
    )


def _targets(arrays: Sequence[NDArray[Any]], keys: Sequence[str], source: str) -> NDArray[Any]:
    for key, array in zip(keys, arrays, strict=True):
        if array.ndim and not len(array):
            raise BundleError(f"{source} has no rows")
        if array.ndim not in (1, 2) or array.dtype.kind not in "biufU":
            raise BundleError(
                f"{source}: target {key!r} is {array.dtype} of shape {list(array.shape)}; expected "
                "one label, or one or several numbers, per row"
            )
        _refuse_not_finite(array, f"{source}: target {key!r}")
    if len({len(array) for array in arrays}) > 1:
        raise BundleError(f"{source}: the targets {', '.join(keys)} differ in length")
    joined = [array.reshape(len(array), -1) for array in arrays]
    targets = joined[0] if len(joined) == 1 else np.concatenate(joined, axis=1)
    return targets[:, 0] if targets.shape[1:] == (1,) else targets


def _find(
    features: Mapping[str, NDArray[Any]], spec: TensorSpec, alone: bool, source: str
) -> NDArray[Any]:
    """The array of an input: by name, or, where it is the only input, by what is left."""
    if spec.name in features:
        return features[spec.name]
    names = [name for name in _INPUT_NAMES if name in features]
    if alone and names:
        return features[names[0]]
    if alone and len(features) == 1:
        return next(iter(features.values()))
    flat = all(array.ndim == 1 and array.dtype.kind in "biuf" for array in features.values())
    if alone and features and flat and len(features) == prod(axis or 0 for axis in spec.shape):
        return np.stack(list(features.values()), axis=1)
    have = ", ".join(f"{name} {list(array.shape)}" for name, array in features.items())
    raise BundleError(
        f"{source} has nothing for the model's input {spec.name!r}, "
        f"{spec.dtype} {_axes(spec)}; beside the targets it has: {have or 'nothing'}"
    )


def _shaped(array: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    """Rows that came flat, or without the axes of length 1, in the model's shape."""
    if array.dtype == np.bool_ and spec.dtype != "bool":
        array = array.astype(np.uint8)
    if array.ndim == 0 or None in spec.shape or array.shape[1:] == spec.shape:
        return array
    wanted = [axis or 1 for axis in spec.shape]
    if prod(array.shape[1:]) != prod(wanted):
        return array
    same = [axis for axis in array.shape[1:] if axis != 1] == [axis for axis in wanted if axis != 1]
    return array.reshape(len(array), *wanted) if same or array.ndim <= 2 else array


def _refuse_not_finite(array: NDArray[Any], where: str) -> None:
    if array.dtype.kind != "f" or bool(np.isfinite(array).all()):
        return
    bad = np.logical_not(np.isfinite(array).reshape(len(array), -1).all(axis=1))
    row = int(bad.argmax())
    what = "NaN" if bool(np.isnan(array[row]).any()) else "infinity"
    raise BundleError(
        f"{where} holds {what} in row {row} ({int(bad.sum())} such rows): fill or drop them"
    )


def _axes(spec: TensorSpec) -> str:
    return str(["any" if axis is None else axis for axis in spec.shape])
