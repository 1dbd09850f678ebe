from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event

import pytest

from service.errors import JournalUnavailable, NotReady, QueueFull
from service.memory.group_commit import GroupCommit
from service.memory.journal import Memories, Written
from service.memory.observer import Unobserved
from service.memory.sqlite_journal import SqliteJournal
from tests.memory.examples import SHAPE, memories


class HeldJournal(SqliteJournal):
    """Commits when it is let to, and remembers how many requests came in each transaction."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, SHAPE)
        self.entered, self.let = Event(), Event()
        self.groups: list[int] = []
        self.failure: Exception | None = None

    def append(self, requests: Sequence[Memories]) -> list[Written]:
        self.entered.set()
        assert self.let.wait(10)
        self.groups.append(len(requests))
        if self.failure is not None:
            raise self.failure
        return super().append(requests)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[HeldJournal]:
    journal = HeldJournal(tmp_path / "journal.sqlite3")
    yield journal
    journal.close()


def writes(journal: HeldJournal, max_rows: int = 100) -> GroupCommit:
    return GroupCommit(journal, lambda: None, Unobserved(), max_rows=max_rows)


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
    commit = GroupCommit(journal, lambda: seen.append(True), Unobserved(), max_rows=10)
    commit.append([memories([0])]).result(10)
    assert seen == [True]
    commit.forget(lambda: journal.forget_source("none")).result(10)
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
    commit = GroupCommit(journal, fail, Unobserved(), max_rows=10)
    assert commit.append([memories([0])]).result(10)[0].created == 1
    assert "could not be published" in caplog.text
    commit.close()
