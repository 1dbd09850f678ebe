"""Inputs of every shape and type, there and back."""

from pathlib import Path

import numpy as np
import pytest
from resmem_service.bundle.manifest import Manifest
from resmem_service.inference.rows import Rows
from resmem_service.inference.tensor_spec import TensorSpec
from resmem_service.maintenance.parquet import ParquetReader, ParquetWriter
from resmem_service.maintenance.portable import PortableFormat
from resmem_service.memory.journal.journal import MemoryRecord, StoredMemory

from tests.conftest import FittedModel

SPECS = {
    "scalar": TensorSpec("age", "int64", ()),
    "image": TensorSpec("image", "uint8", (2, 3, 4)),
    "sequence": TensorSpec("tokens", "int32", (None,)),
    "grid": TensorSpec("grid", "float32", (None, 2)),
    "half": TensorSpec("half", "float16", (3,)),
    "flags": TensorSpec("flags", "bool", (2,)),
}


def example(spec: TensorSpec, row: int) -> np.ndarray:
    shape = [axis or 1 + row % 3 for axis in spec.shape]
    values = np.arange(int(np.prod(shape))).reshape(shape) + row
    return (values % 2 if spec.dtype == "bool" else values).astype(spec.dtype)


@pytest.mark.parametrize("names", [[name] for name in SPECS] + [list(SPECS)])
def test_every_input_comes_back_as_it_was(
    digits: FittedModel, tmp_path: Path, names: list[str]
) -> None:
    specs = [SPECS[name] for name in names]
    manifest: Manifest = digits.bundle.manifest.model_copy(update={"inputs": specs})
    form = PortableFormat(manifest)
    rows = [Rows({spec.name: example(spec, row)[None] for spec in specs}) for row in range(7)]
    memories = [
        StoredMemory(
            MemoryRecord(f"m-{number}", number + 1, None, 3, 1.0, number),
            one.encode()[0],
            np.zeros(32, np.float32),
            np.zeros(10, np.float32),
        )
        for number, one in enumerate(rows)
    ]
    writer = ParquetWriter(tmp_path / "m.parquet", manifest, vectors=False)
    writer.write([form.dump(memory, vectors=False) for memory in memories[:4]])
    writer.write([form.dump(memory, vectors=False) for memory in memories[4:]])
    writer.close()
    reader = ParquetReader(tmp_path / "m.parquet")
    assert reader.total == 7
    entries = list(reader)
    assert [entry.number for entry in entries] == list(range(1, 8))
    loaded = [form.load(entry.value) for entry in entries]
    assert [one.rows.encode()[0] for one in loaded] == [memory.input for memory in memories]
    assert [one.id for one in loaded] == [memory.record.id for memory in memories]
