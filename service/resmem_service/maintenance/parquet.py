"""Memories as Parquet: a column a field, inputs as nested lists; needs the extra `fit`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from resmem_service.bundle.manifest import Manifest
from resmem_service.errors import BundleError
from resmem_service.inference.tensor_spec import TensorSpec
from resmem_service.maintenance.entry import Entry

__all__ = ["ParquetReader", "ParquetWriter"]

_READ_ROWS = 256


class ParquetReader:
    """Iterates over the rows.

    Raises:
        BundleError: it is not a Parquet file.
        OSError: there is none.
    """

    unit = "rows"
    noun = "row"

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = pq.ParquetFile(path)
        except pa.ArrowException as error:
            raise BundleError(f"{path} is not a Parquet file: {error}") from error
        self.total = self._file.metadata.num_rows

    def __iter__(self) -> Iterator[Entry]:
        number = 0
        try:
            with self._file:
                for batch in self._file.iter_batches(batch_size=_READ_ROWS):
                    for value in batch.to_pylist():
                        number += 1
                        yield Entry(number, 1, value)
        except (pa.ArrowException, OSError) as error:
            raise BundleError(f"{self._path} cannot be read past row {number}: {error}") from error


class ParquetWriter:
    """Makes or replaces the file.

    Args:
        path: the file.
        manifest: of the bundle that the memories are of.
        vectors: whether they come with embedding and residual.
    """

    def __init__(self, path: Path, manifest: Manifest, *, vectors: bool) -> None:
        self._inputs = manifest.inputs
        self._target: Any = pa.list_(pa.float32())
        if manifest.classes is not None:
            self._target = pa.string()
        elif manifest.outputs == 1:
            self._target = pa.float32()
        self._vectors = vectors
        self._writer = pq.ParquetWriter(path, self._schema(), compression="zstd")

    def write(self, values: list[dict[str, object]]) -> None:
        """Adds a row for each object."""
        columns = {name: [value[name] for value in values] for name in self._schema().names}
        arrays = [
            self._input_column(columns[field.name])
            if field.name == "inputs"
            else pa.array([_plain(value) for value in columns[field.name]], field.type)
            for field in self._schema()
        ]
        self._writer.write_batch(pa.record_batch(arrays, schema=self._schema()))

    def close(self) -> None:
        """Ends the file."""
        self._writer.close()

    def _schema(self) -> Any:
        fields = [
            ("id", pa.string()),
            ("inputs", self._input_type()),
            ("target", self._target),
            ("weight", pa.float64()),
            ("source", pa.string()),
            ("created_ms", pa.int64()),
            ("bundle", pa.string()),
        ]
        if self._vectors:
            fields += [
                ("embedding", pa.list_(pa.float32())),
                ("residual", pa.list_(pa.float32())),
            ]
        return pa.schema(fields)

    def _input_type(self) -> Any:
        types = {spec.name: _type_of(spec) for spec in self._inputs}
        return next(iter(types.values())) if len(types) == 1 else pa.struct(list(types.items()))

    def _input_column(self, values: Sequence[Any]) -> Any:
        if len(self._inputs) == 1:
            return _nested(values, self._inputs[0])
        columns = [_nested([value[spec.name] for value in values], spec) for spec in self._inputs]
        return pa.StructArray.from_arrays(columns, [spec.name for spec in self._inputs])


def _element(spec: TensorSpec) -> np.dtype[Any]:
    # Half floats come back from Parquet as numpy's, which no decoder of JSON gives.
    return np.dtype(np.float32 if spec.dtype == "float16" else spec.dtype)


def _type_of(spec: TensorSpec) -> Any:
    result = pa.from_numpy_dtype(_element(spec))
    for _ in spec.shape:
        result = pa.list_(result)
    return result


def _nested(arrays: Sequence[NDArray[Any]], spec: TensorSpec) -> Any:
    """Arrays of one number of axes, not always of one shape, as a column of nested lists."""
    flat = np.concatenate([np.asarray(array, _element(spec)).ravel() for array in arrays])
    column = pa.array(flat)
    for axis in reversed(range(len(spec.shape))):
        lengths = np.concatenate(
            [
                np.full(int(np.prod(array.shape[:axis], dtype=np.int64)), array.shape[axis])
                for array in arrays
            ]
        )
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        column = pa.ListArray.from_arrays(pa.array(offsets), column)
    return column


def _plain(value: object) -> object:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
