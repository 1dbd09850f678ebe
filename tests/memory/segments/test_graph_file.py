from pathlib import Path

import numpy as np
import pytest
from resmem_service.errors import CorruptFile
from resmem_service.memory.rows import SegmentRows
from resmem_service.memory.segments.build import build_segment
from resmem_service.memory.segments.graph_file import GraphVectors
from resmem_service.memory.segments.graph_settings import GraphSettings

from tests.memory.examples import LABELS, PIXELS, RESIDUALS, SHAPE


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("segment") / "built"
    rows = SegmentRows(
        embeddings=PIXELS,
        residuals=RESIDUALS,
        targets=LABELS,
        sequences=np.arange(len(PIXELS)),
        weights=np.ones(len(PIXELS), np.float32),
    )
    # Several threads add rows in no certain order.
    build_segment(folder, rows, GraphSettings(threads=4), SHAPE)
    return folder / "graph.hnsw"


def test_the_vectors_of_rows_are_what_was_built(graph: Path) -> None:
    vectors = GraphVectors(graph, 64, len(PIXELS))
    assert len(vectors) == len(PIXELS)
    rows = np.array([1796, 0, 5, 5])
    assert np.array_equal(vectors.take(rows), PIXELS[rows])
    assert np.array_equal(vectors.take(np.arange(1797)), PIXELS)


def test_another_dimension_is_refused(graph: Path) -> None:
    with pytest.raises(CorruptFile, match=r"graph\.hnsw.*header"):
        GraphVectors(graph, 63, len(PIXELS))


def test_a_cut_file_is_refused(graph: Path, tmp_path: Path) -> None:
    (tmp_path / "cut").write_bytes(graph.read_bytes()[:50_000])
    with pytest.raises(CorruptFile, match="cut"):
        GraphVectors(tmp_path / "cut", 64, len(PIXELS))


def test_a_row_that_stands_twice_is_refused(graph: Path, tmp_path: Path) -> None:
    content = bytearray(graph.read_bytes())
    record, label = (int.from_bytes(content[at : at + 8], "little") for at in (24, 32))
    first, second = (slice(96 + n * record + label, 96 + n * record + label + 8) for n in (0, 1))
    content[first] = content[second]
    (tmp_path / "twice").write_bytes(content)
    with pytest.raises(CorruptFile, match="labels"):
        GraphVectors(tmp_path / "twice", 64, len(PIXELS))
