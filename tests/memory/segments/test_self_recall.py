from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from resmem_service.memory.search import _kernel
from resmem_service.memory.segments.build import UnreachableRows, build_segment
from resmem_service.memory.segments.graph_settings import GraphSettings
from resmem_service.memory.segments.sealed_segment import SealedSegment
from resmem_service.memory.segments.self_recall import LEAST_RECALL, SelfRecall, most_entries

from tests.memory.examples import SHAPE
from tests.memory.segments.test_copies import DISTINCT, old_segment, rewrite, rows_of, with_copies

EF = 20
GRAPH = GraphSettings(threads=1, ef=EF)
CENTRED = DISTINCT - DISTINCT.mean(axis=0)


def opened(
    folder: Path, embeddings: NDArray[np.float32], least_recall: float = LEAST_RECALL
) -> SealedSegment:
    rows = rows_of(embeddings, np.arange(1, len(embeddings) + 1))
    build_segment(folder, rows, GRAPH, SHAPE, least_recall=least_recall)
    return SealedSegment.open(folder, SHAPE)


def crowd(jitter: float, share: float = 0.5, n: int = 2000) -> NDArray[np.float32]:
    """Digits among very many that are nearly equal, in their midst."""
    rng = np.random.default_rng(0)
    others = CENTRED[1 : 1 + round((1 - share) * n)]
    near = jitter * rng.normal(size=(n - len(others), 64))
    rows = np.concatenate([others, near.astype(np.float32)])
    return np.asarray(rows[rng.permutation(n)], np.float32)


@pytest.mark.parametrize("jitter", [1e-23, 1e-5, 1e-2])
def test_memories_beside_many_that_are_nearly_equal_are_found(
    tmp_path: Path, jitter: float
) -> None:
    embeddings = crowd(jitter)
    segment = opened(tmp_path / "s", embeddings)
    _, _, distances, _ = _kernel.correct([segment.native], CENTRED[1:1001], 10, 1, EF, 1.0, 0.0)
    assert (distances[:, 0] == 0).mean() > 0.99
    assert segment.recall is not None
    assert segment.recall > LEAST_RECALL


def test_what_the_graph_does_not_find_becomes_an_entry(tmp_path: Path) -> None:
    segment = opened(tmp_path / "s", crowd(1e-23))
    assert len(segment.entries) > 50
    assert len(segment.entries) <= most_entries(2000, 64)
    assert len(SelfRecall.thorough(segment.native, EF).missed) == 0
    rewrite(tmp_path / "s", entries=segment.entries[:1])
    without = SealedSegment.open(tmp_path / "s", SHAPE)
    assert SelfRecall.of_sample(without.native, EF).share < LEAST_RECALL


def test_a_graph_with_entries_is_carried_on_with_them(tmp_path: Path) -> None:
    embeddings = crowd(1e-23)
    base = opened(tmp_path / "base", embeddings[:1500])
    assert len(base.entries)
    more = rows_of(embeddings[1500:], np.arange(1501, 2001))
    build_segment(tmp_path / "s", more, GRAPH, SHAPE, base=base)
    segment = SealedSegment.open(tmp_path / "s", SHAPE)
    assert segment.rows == 2000
    assert len(segment.entries) >= len(base.entries)
    _, _, distances, _ = _kernel.correct([segment.native], CENTRED[1:1001], 10, 1, EF, 1.0, 0.0)
    assert (distances[:, 0] == 0).mean() > 0.99


def test_an_old_segment_whose_copies_cut_off_the_others_is_told(tmp_path: Path) -> None:
    old = SealedSegment.open(old_segment(tmp_path / "s", DISTINCT[with_copies(0.3)]), SHAPE)
    assert SelfRecall.of_sample(old.native, 50).share < 0.9


def test_rows_that_do_not_live_are_not_asked_for(tmp_path: Path) -> None:
    segment = opened(tmp_path / "s", np.repeat(DISTINCT[:300], 2, axis=0))
    for row in range(0, 600, 2):
        segment.native.forget(row)
    assert SelfRecall.of_sample(segment.native, EF).asked == 300
    for row in range(1, 401, 2):
        segment.native.forget(row)
    found = SelfRecall.of_sample(segment.native, EF)
    assert (found.asked, found.share) == (100, 1.0)
    for row in range(401, 600, 2):
        segment.native.forget(row)
    found = SelfRecall.of_sample(segment.native, EF)
    assert (found.asked, found.share) == (0, 1.0)


def test_a_segment_that_does_not_find_its_rows_is_built_again_and_then_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without entries, which would mend it."""
    monkeypatch.setattr("resmem_service.memory.segments.build.most_entries", lambda *_: 0)
    with pytest.raises(UnreachableRows, match=r"finds only .*% of its own rows at ef = 20"):
        opened(tmp_path / "s", crowd(1e-23))
    assert not (tmp_path / "s" / "segment.json").exists()
    segment = opened(tmp_path / "any", crowd(1e-23), least_recall=0)
    assert segment.recall is not None
    assert segment.recall < LEAST_RECALL


def test_the_second_graph_has_more_links_and_holds_the_rows_of_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = iter([0.5, 0.5, 1.0])
    monkeypatch.setattr(
        "resmem_service.memory.segments.build._Build._write_entries", lambda *_: next(shares)
    )
    base = old_base(tmp_path)
    more = rows_of(DISTINCT[500:600], np.arange(501, 601))
    build_segment(tmp_path / "s", more, GRAPH, SHAPE, base=base)
    segment = SealedSegment.open(tmp_path / "s", SHAPE)
    assert np.load(tmp_path / "s/links.npy").shape == (600, 64)
    assert segment.rows == 600
    assert SelfRecall.of_sample(segment.native, EF).share == 1.0
    _, found, _, _ = _kernel.correct([segment.native], DISTINCT[:600], 10, 1, EF, 1.0, 0.0)
    assert np.array_equal(found[:, 0], np.arange(1, 601))


def old_base(tmp_path: Path) -> SealedSegment:
    return SealedSegment.open(old_segment(tmp_path / "base", DISTINCT[:500]), SHAPE)


def test_of_a_sound_graph_a_sample_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    of: Callable[..., SelfRecall] = SelfRecall._of

    def counted(
        segment: _kernel.SealedSegment, elements: NDArray[np.uint32], ef: int
    ) -> SelfRecall:
        asked.append(len(elements))
        return of(segment, elements, ef)

    monkeypatch.setattr(SelfRecall, "_of", counted)
    opened(tmp_path / "s", DISTINCT)
    assert sum(asked) <= 1005


@pytest.mark.parametrize("entries", [[1500], [3, 3], [4, 2]])
def test_entries_that_are_no_elements_in_order_are_refused(
    tmp_path: Path, entries: list[int]
) -> None:
    opened(tmp_path / "s", crowd(1e-23, n=1400))
    rewrite(tmp_path / "s", entries=np.array(entries, np.uint32))
    with pytest.raises(Exception, match="entries are not elements in order"):
        SealedSegment.open(tmp_path / "s", SHAPE)
