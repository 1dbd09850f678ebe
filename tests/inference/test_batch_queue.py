from asyncio import AbstractEventLoop, new_event_loop
from collections import defaultdict
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from resmem_service.inference.batch_queue import BatchQueue, Request

from tests.inference.items import Answers, Items

Queue = BatchQueue[Items, Answers]
ItemRequest = Request[Items, Answers]


@pytest.fixture(scope="module")
def loop() -> Iterator[AbstractEventLoop]:
    loop = new_event_loop()
    yield loop
    loop.close()


def request(
    loop: AbstractEventLoop, size: int, signature: str = "a", first: int = 0
) -> ItemRequest:
    items = Items(tuple(range(first, first + size)), signature)
    return Request(items, loop.create_future(), 0.0, size)


sizes = st.lists(st.tuples(st.integers(1, 40), st.sampled_from("ab")), min_size=1, max_size=30)


@given(sizes=sizes, room=st.integers(1, 20))
def test_every_row_runs_once_in_the_order_of_its_request(
    loop: AbstractEventLoop, sizes: list[tuple[int, str]], room: int
) -> None:
    queue: Queue = BatchQueue()
    requests = [
        request(loop, size, signature, first=1000 * at)
        for at, (size, signature) in enumerate(sizes)
    ]
    for one in requests:
        queue.add(one)
    ran: dict[ItemRequest, list[int]] = defaultdict(list)
    while queue.rows:
        before = queue.rows
        parts, dropped = queue.take(room)
        rows = sum(len(part.rows) for part in parts)
        assert not dropped
        assert 1 <= rows <= room
        assert queue.rows == before - rows
        assert len({part.rows.signature for part in parts}) == 1
        assert len({part.request for part in parts}) == len(parts)
        for part in parts:
            assert part.start == len(ran[part.request])
            ran[part.request] += part.rows.numbers
    assert {one: tuple(numbers) for one, numbers in ran.items()} == {
        one: one.rows.numbers for one in requests
    }
    assert queue.take(room) == ([], [])


@given(sizes=st.lists(st.integers(1, 300), min_size=1, max_size=40), room=st.integers(1, 64))
def test_a_batch_is_full_while_rows_wait(
    loop: AbstractEventLoop, sizes: list[int], room: int
) -> None:
    queue: Queue = BatchQueue()
    for size in sizes:
        queue.add(request(loop, size))
    while waiting := queue.rows:
        parts, _ = queue.take(room)
        assert sum(len(part.rows) for part in parts) == min(room, waiting)


def test_small_requests_run_beside_a_large_one_that_came_first(loop: AbstractEventLoop) -> None:
    queue: Queue = BatchQueue()
    large, *small = [request(loop, 1000), *(request(loop, 1) for _ in range(10))]
    for one in (large, *small):
        queue.add(one)
    parts, _ = queue.take(64)
    assert {part.request: len(part.rows) for part in parts} == {
        large: 54,
        **dict.fromkeys(small, 1),
    }


def test_large_requests_advance_under_a_flood_of_small_ones(loop: AbstractEventLoop) -> None:
    queue: Queue = BatchQueue()
    large = request(loop, 64)
    queue.add(large)
    turns = 0
    while large.remaining:
        for _ in range(64):
            queue.add(request(loop, 1))
        queue.take(64)
        turns += 1
        assert turns < 100
    assert turns > 1


def test_large_requests_alone_run_whole_in_their_order(loop: AbstractEventLoop) -> None:
    queue: Queue = BatchQueue()
    requests = [request(loop, 48) for _ in range(4)]
    for one in requests:
        queue.add(one)
    batches = [
        {part.request: len(part.rows) for part in queue.take(64)[0]} for _ in range(len(requests))
    ]
    first, second, third, fourth = requests
    assert batches == [
        {first: 48, second: 16},
        {third: 48, fourth: 16},
        {second: 32, fourth: 32},
        {},
    ]


def test_what_is_larger_than_a_batch_takes_turns_with_its_like(loop: AbstractEventLoop) -> None:
    queue: Queue = BatchQueue()
    requests = [request(loop, 128), request(loop, 128)]
    for one in requests:
        queue.add(one)
    ran = [queue.take(64)[0][0].request for _ in range(4)]
    assert ran == [*requests, *requests]


def test_lines_of_different_signatures_take_turns(loop: AbstractEventLoop) -> None:
    queue: Queue = BatchQueue()
    for signature in "aab":
        queue.add(request(loop, 8, signature))
    taken = [queue.take(4)[0][0].rows.signature for _ in range(6)]
    assert taken == ["a", "b", "a", "b", "a", "a"]


def test_the_requests_of_callers_who_gave_up_are_dropped_and_told_once(
    loop: AbstractEventLoop,
) -> None:
    queue: Queue = BatchQueue()
    gone, kept = request(loop, 5), request(loop, 3)
    queue.add(gone)
    queue.add(kept)
    gone.future.cancel()
    parts, dropped = queue.take(64)
    assert [part.request for part in parts] == [kept]
    assert dropped == [gone]
    assert queue.rows == 0


def test_a_request_that_failed_is_forgotten_without_a_word(loop: AbstractEventLoop) -> None:
    queue: Queue = BatchQueue()
    failed = request(loop, 10)
    queue.add(failed)
    queue.take(4)
    failed.error = ValueError()
    assert queue.take(4) == ([], [])
    assert queue.rows == 0


def test_clear_returns_who_still_waits_for_an_answer(loop: AbstractEventLoop) -> None:
    queue: Queue = BatchQueue()
    started, failed, new = request(loop, 10), request(loop, 10), request(loop, 1, "b")
    for one in (started, failed, new):
        queue.add(one)
    queue.take(4)
    failed.error = ValueError()
    assert set(queue.clear()) == {started, new}
    assert queue.rows == 0


def test_a_whole_request_is_not_copied(loop: AbstractEventLoop) -> None:
    queue: Queue = BatchQueue()
    one = request(loop, 4)
    queue.add(one)
    parts, _ = queue.take(8)
    assert parts[0].rows is one.rows
