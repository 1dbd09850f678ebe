from pathlib import Path

import hnswlib
import numpy as np
import pytest
from resmem_service.memory.rows import SegmentRows
from resmem_service.memory.segments.build import build_segment
from resmem_service.memory.segments.graph_settings import GraphSettings
from resmem_service.memory.segments.sealed_segment import SealedSegment

from tests.memory.examples import LABELS, PIXELS, RESIDUALS, SHAPE, fitted_folder


def test_a_graph_that_was_not_written_whole_is_no_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = hnswlib.Index.save_index

    def save_on_a_full_disk(index: hnswlib.Index, path: str) -> None:
        save(index, path)
        with Path(path).open("r+b") as file:
            file.truncate(1000)

    class FullDisk:
        def __init__(self, space: str, dim: int) -> None:
            self._index = hnswlib_index(space=space, dim=dim)

        def __getattr__(self, name: str) -> object:
            return getattr(self._index, name)

        def save_index(self, path: str) -> None:
            save_on_a_full_disk(self._index, path)

    hnswlib_index = hnswlib.Index
    monkeypatch.setattr(hnswlib, "Index", FullDisk)
    with pytest.raises(OSError, match="was not written whole"):
        fitted_folder(tmp_path)
    assert not (tmp_path / "memories" / "segment.json").exists()


def test_a_folder_that_exists_is_not_built_over(tmp_path: Path) -> None:
    folder = fitted_folder(tmp_path)
    rows = SegmentRows(PIXELS[:5], RESIDUALS[:5], LABELS[:5], np.arange(1, 6), np.ones(5, "f4"))
    with pytest.raises(FileExistsError):
        build_segment(folder, rows, GraphSettings(), SHAPE)
    SealedSegment.open(folder, SHAPE).verify()


def test_progress_counts_every_row(tmp_path: Path) -> None:
    rows = SegmentRows(
        PIXELS, RESIDUALS, LABELS, np.arange(len(PIXELS)), np.ones(len(PIXELS), "f4")
    )
    seen: list[int] = []
    graph = GraphSettings(m=8, threads=1)
    build_segment(tmp_path / "s", rows, graph, SHAPE, progress=seen.append)
    assert sum(seen) == len(PIXELS)
