import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event

import pytest
from resmem_service.errors import JournalLocked, JournalUnavailable, NotReady, QueueFull
from resmem_service.memory.journal.group_commit import GroupCommit
from resmem_service.memory.journal.journal import Memories, Written
from resmem_service.memory.journal.sqlite.journal import SqliteJournal
from resmem_service.memory.observer import SilentMemoryObserver

from tests.memory.examples import SHAPE, memories

BUSY_MS = 500


class HeldJournal(SqliteJournal):
    """Writes when it is let to, and remembers how many requests came in each transaction."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, SHAPE)
        self.entered, self.let = Event(), Event()
        self.groups: list[int] = []
        self.waits: list[int] = []
        self.failure: Exception | None = None
        self.failing = 1000
        """So many of the first writes fail."""

    def append(self, requests: Sequence[Memories], *, wait_ms: int | None = None) -> list[Written]:
        self._enter(len(requests), wait_ms)
        return super().append(requests)

    def forget(self, *ids: str, wait_ms: int | None = None) -> list[int]:
        self._enter(len(ids), wait_ms)
        return super().forget(*ids)

    def _enter(self, requests: int, wait_ms: int | None) -> None:
        assert wait_ms is not None
        self.waits.append(wait_ms)
        self.entered.set()
        assert self.let.wait(10)
        self.groups.append(requests)
        if self.failure is not None and len(self.groups) <= self.failing:
            raise self.failure


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[HeldJournal]:
    journal = HeldJournal(tmp_path / "journal.sqlite3")
    yield journal
    journal.close()


def writes(journal: HeldJournal, max_rows: int = 100) -> GroupCommit:
    return GroupCommit(
        journal, lambda: None, SilentMemoryObserver(), max_rows=max_rows, busy_ms=BUSY_MS
    )


def test_what_arrives_during_a_commit_shares_the_next(journal: HeldJournal) -> None:
    commit = writes(journal)
    first = commit.append([memories([0])])
    assert journal.entered.wait(10)
    others = [commit.append([memories([row])]) for row in range(1, 6)]
    journal.let.set()
    assert [future.result(10)[0].created for future in [first, *others]] == [1] * 6
    assert journal.groups == [1, 5]
    commit.close()


def test_replies_come_after_publication(tmp_path: Path) -> None:
    journal = HeldJournal(tmp_path / "j.sqlite3")
    journal.let.set()
    seen: list[bool] = []
    commit = GroupCommit(
        journal, lambda: seen.append(True), SilentMemoryObserver(), max_rows=10, busy_ms=BUSY_MS
    )
    commit.append([memories([0])]).result(10)
    assert seen == [True]
    commit.forget_source("none").result(10)
    assert seen == [True, True]
    commit.close()
    journal.close()


def test_requests_queued_together_are_told_apart(journal: HeldJournal) -> None:
    commit = writes(journal)
    held = commit.append([memories([0])])
    assert journal.entered.wait(10)
    pair = commit.append([memories([1], ids=["a"]), memories([2, 3], ids=["b", "a"])])
    single = commit.append([memories([4], ids=["b"])])
    journal.let.set()
    assert [len(future.result(10)) for future in (held, pair, single)] == [1, 2, 1]
    assert [(one.created, one.replaced) for one in pair.result(0)] == [(1, 0), (1, 1)]
    assert single.result(0)[0].replaced == 1
    assert journal.groups == [1, 3]
    commit.close()


def test_a_failed_commit_fails_its_requests_and_no_others(journal: HeldJournal) -> None:
    commit = writes(journal)
    journal.failure = JournalUnavailable("full")
    failed = commit.append([memories([0])])
    journal.let.set()
    with pytest.raises(JournalUnavailable):
        failed.result(10)
    journal.failure = None
    assert commit.append([memories([0])]).result(10)[0].created == 1
    commit.close()


def test_the_queue_is_bounded_in_rows_and_frees_them(journal: HeldJournal) -> None:
    commit = writes(journal, max_rows=3)
    first = commit.append([memories(range(2))])
    with pytest.raises(QueueFull):
        commit.append([memories(range(2))])
    journal.let.set()
    first.result(10)
    # A request larger than the bound passes alone: nothing else could ever let it through.
    assert commit.append([memories(range(5))]).result(10)[0].created == 5
    commit.close()


def test_a_cancelled_request_is_not_written(journal: HeldJournal) -> None:
    commit = writes(journal, max_rows=3)
    first = commit.append([memories([0])])
    assert journal.entered.wait(10)
    gone = commit.append([memories(range(2))])
    assert gone.cancel()
    journal.let.set()
    first.result(10)
    assert commit.append([memories(range(3))]).result(10)[0].created == 3
    assert sum(journal.groups) == 2
    commit.close()


def test_closing_finishes_what_is_queued(journal: HeldJournal) -> None:
    commit = writes(journal)
    futures = [commit.append([memories([row])]) for row in range(3)]
    journal.let.set()
    commit.close()
    commit.close()
    assert all(future.result(0)[0].created == 1 for future in futures)
    with pytest.raises(NotReady):
        commit.append([memories([0])])


def test_a_publication_that_fails_does_not_unsay_the_commit(
    journal: HeldJournal, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("no")

    journal.let.set()
    commit = GroupCommit(journal, fail, SilentMemoryObserver(), max_rows=10, busy_ms=BUSY_MS)
    assert commit.append([memories([0])]).result(10)[0].created == 1
    assert "could not be published" in caplog.text
    commit.close()


def test_what_is_forgotten_together_shares_a_commit(journal: HeldJournal) -> None:
    commit = writes(journal)
    first = commit.append([memories(range(5), ids=list("abcde"))])
    assert journal.entered.wait(10)
    gone = [commit.forget(id) for id in ("a", "nobody", "c", "a")]
    source = commit.forget_source("nobody's")
    last = commit.append([memories([6], ids=["c"])])
    journal.let.set()
    assert first.result(10)[0].created == 5
    assert [future.result(10) for future in gone] == [1, 0, 1, 0]
    assert source.result(10) == 0
    assert last.result(10)[0].created == 1, "the order of arrival is kept"
    assert journal.groups == [1, 4, 1]
    commit.close()


@pytest.mark.parametrize("count", [1, 60])
def test_all_that_waited_too_long_fail_with_one_wait(journal: HeldJournal, count: int) -> None:
    """Each on its own would make the last one wait `count` times as long."""
    commit = writes(journal)
    journal.failure = JournalLocked("locked")
    first = commit.forget("a")
    assert journal.entered.wait(10)
    queued = [commit.forget("b") for _ in range(count)]
    appended = commit.append([memories([0])])
    sources = commit.forget_source("s")
    time.sleep(BUSY_MS / 1000)
    journal.let.set()
    for future in (first, *queued, sources):
        with pytest.raises(JournalLocked):
            future.result(10)
    with pytest.raises(JournalLocked):
        appended.result(10)
    assert journal.groups == [1]
    journal.failure = None
    assert commit.append([memories(range(100))]).result(10)[0].created == 100, "rows are free again"
    commit.close()


def test_what_came_later_waits_on_for_the_rest_of_its_time(journal: HeldJournal) -> None:
    commit = writes(journal)
    journal.failure, journal.failing = JournalLocked("locked"), 1
    first = commit.append([memories([0])])
    assert journal.entered.wait(10)
    # As if it came in an hour: whatever the machine does meanwhile, its time is not up.
    later = commit.append([memories([1])], arrived=time.monotonic() + 3600)
    old = commit.append([memories([2])], arrived=time.monotonic() - 3600)
    journal.let.set()
    with pytest.raises(JournalLocked):
        first.result(10)
    with pytest.raises(JournalLocked):
        old.result(10)
    assert later.result(10)[0].created == 1
    assert journal.waits[0] <= BUSY_MS < journal.waits[-1]
    commit.close()


def test_what_waited_long_for_its_turn_still_gets_a_try(journal: HeldJournal) -> None:
    journal.let.set()
    commit = writes(journal)
    late = commit.append([memories([0])], arrived=time.monotonic() - 3600)
    assert late.result(10)[0].created == 1
    assert 0 < journal.waits[0] <= BUSY_MS
    commit.close()
