import asyncio
import threading
from collections.abc import Coroutine, Sequence
from threading import current_thread, main_thread
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from resmem_service.errors import InvalidInput, NotReady, QueueFull, TooManyRows
from resmem_service.inference.batcher import Batcher, Limits, RunBatch

from tests.inference.items import (
    PATIENCE_S,
    Answers,
    Gate,
    ItemPart,
    Items,
    answer,
    answers_of,
    unobserved,
)

ItemBatcher = Batcher[Items, Answers]

HOUR_MS = 3_600_000


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, PATIENCE_S))


def started(
    run_batch: RunBatch[Items, Answers],
    *,
    max_batch_rows: int = 256,
    max_queue_rows: int = 8192,
    max_delay_ms: float = 0.0,
    max_inline_ms: float = 0.0,
) -> ItemBatcher:
    limits = Limits(max_batch_rows, max_queue_rows, max_delay_ms, max_inline_ms)
    batcher = ItemBatcher(run_batch, limits, join=joined, on_batch=unobserved)
    batcher.start()
    return batcher


def joined(parts: list[Answers]) -> Answers:
    return [one for part in parts for one in part]


async def queued(
    batcher: ItemBatcher, requests: Sequence[Items]
) -> list["asyncio.Future[Answers]"]:
    """Submits in order and returns once all are in the queue."""
    tasks = [batcher.submit(items) for items in requests]
    await asyncio.sleep(0)
    return tasks


@st.composite
def requests(draw: st.DrawFn) -> list[Items]:
    drawn = draw(
        st.lists(st.tuples(st.integers(1, 30), st.sampled_from("abc")), min_size=1, max_size=25)
    )
    return [
        Items(tuple(range(1000 * at, 1000 * at + size)), signature)
        for at, (size, signature) in enumerate(drawn)
    ]


@given(
    requests=requests(),
    bad=st.sets(st.integers(0, 24)),
    cancelled=st.sets(st.integers(0, 24)),
    max_batch_rows=st.integers(1, 40),
)
@settings(max_examples=60, deadline=None)
def test_everybody_gets_what_is_theirs(
    requests: list[Items], bad: set[int], cancelled: set[int], max_batch_rows: int
) -> None:
    poison = {items.numbers[-1] for at, items in enumerate(requests) if at in bad}

    def poisoned(parts: Sequence[ItemPart]) -> list[Answers | Exception]:
        if any(poison & set(part.rows.numbers) for part in parts):
            raise InvalidInput("poison")
        return answer(parts)

    async def scenario() -> None:
        gate = Gate(poisoned)
        batcher = started(gate, max_batch_rows=max_batch_rows)
        first = batcher.submit(Items((-1,)))
        await gate.begun()
        tasks = await queued(batcher, requests)
        assert batcher.queued_rows == 1 + sum(map(len, requests))
        for at in cancelled & set(range(len(tasks))):
            tasks[at].cancel()
        gate.open()
        assert await first == ["a-1"]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for at, (items, result) in enumerate(zip(requests, results, strict=True)):
            if at in cancelled:
                assert isinstance(result, asyncio.CancelledError)
                assert not any(items.numbers[0] in one.numbers for one in flat(gate.batches))
            elif at in bad:
                assert isinstance(result, InvalidInput)
            else:
                assert not isinstance(result, BaseException)
                assert result == answers_of(items)
        for batch in gate.batches:
            assert sum(map(len, batch)) <= max_batch_rows
            assert len({items.signature for items in batch}) == 1
        await batcher.close()
        assert batcher.queued_rows == 0

    run(scenario())


def flat(batches: list[list[Items]]) -> list[Items]:
    return [items for batch in batches for items in batch]


def test_a_batch_is_what_queued_while_the_last_one_ran() -> None:
    async def scenario() -> None:
        gate = Gate(answer)
        batcher = started(gate)
        tasks = await queued(batcher, [Items((0,))])
        await gate.begun()
        tasks += await queued(batcher, [Items((number,)) for number in range(1, 6)])
        gate.open()
        await asyncio.gather(*tasks)
        assert [len(batch) for batch in gate.batches] == [1, 5]
        await batcher.close()

    run(scenario())


def test_one_wake_up_of_the_loop_answers_a_whole_batch() -> None:
    async def scenario() -> None:
        gate = Gate(answer)
        batcher = started(gate)
        tasks = await queued(batcher, [Items((0,))])
        await gate.begun()
        tasks += await queued(batcher, [Items((number,)) for number in range(1, 6)])
        done_together = asyncio.create_task(
            asyncio.wait(tasks[1:], return_when=asyncio.FIRST_COMPLETED)
        )
        gate.open()
        done, pending = await done_together
        assert len(done) == 5
        assert not pending
        await batcher.close()

    run(scenario())


def test_one_that_raises_fails_alone_and_one_returned_error_is_its_own() -> None:
    def judged(parts: Sequence[ItemPart]) -> list[Answers | Exception]:
        if any(13 in part.rows.numbers for part in parts):
            raise InvalidInput("unlucky")
        return [
            InvalidInput("seven") if 7 in part.rows.numbers else answers_of(part.rows)
            for part in parts
        ]

    async def scenario() -> None:
        gate = Gate(judged)
        batcher = started(gate)
        gate.open()
        results = await asyncio.gather(
            *await queued(batcher, [Items((number,)) for number in (1, 7, 13, 2)]),
            return_exceptions=True,
        )
        assert [str(result) for result in results] == ["['a1']", "seven", "unlucky", "['a2']"]
        await batcher.close()

    run(scenario())


def test_a_large_request_that_fails_in_one_batch_runs_in_no_other() -> None:
    def refuse(_: Sequence[ItemPart]) -> list[Answers | Exception]:
        raise InvalidInput("no")

    async def scenario() -> None:
        gate = Gate(refuse)
        batcher = started(gate, max_batch_rows=4)
        gate.open()
        with pytest.raises(InvalidInput):
            await batcher.submit(Items(tuple(range(100))))
        await batcher.close()
        assert len(gate.batches) == 1
        assert batcher.queued_rows == 0

    run(scenario())


def test_a_full_queue_refuses_at_once_and_has_room_again_after() -> None:
    async def scenario() -> None:
        gate = Gate(answer)
        batcher = started(gate, max_queue_rows=10)
        tasks = await queued(batcher, [Items((1, 2, 3, 4)), Items((5, 6, 7, 8))])
        with pytest.raises(QueueFull):
            await batcher.submit(Items((9, 10, 11)))
        tasks += await queued(batcher, [Items((9, 10))])
        assert batcher.queued_rows == 10
        with pytest.raises(TooManyRows):
            await batcher.submit(Items(tuple(range(11))))
        gate.open()
        await asyncio.gather(*tasks)
        assert batcher.queued_rows == 0
        assert len(await batcher.submit(Items(tuple(range(10))))) == 10
        await batcher.close()

    run(scenario())


def test_a_cancelled_request_holds_its_room_until_the_thread_has_let_it_go() -> None:
    # Otherwise callers who give up fast could queue without bound behind a slow batch.
    async def scenario() -> None:
        gate = Gate(answer)
        batcher = started(gate, max_queue_rows=2)
        first = batcher.submit(Items((1,)))
        await gate.begun()
        second = (await queued(batcher, [Items((2,))]))[0]
        second.cancel()
        await asyncio.wait([second])
        with pytest.raises(QueueFull):
            await batcher.submit(Items((3,)))
        gate.open()
        await first
        await batcher.close()
        assert batcher.queued_rows == 0
        assert flat(gate.batches) == [Items((1,))]

    run(scenario())


def test_close_lets_the_running_batch_end_and_the_rest_know() -> None:
    async def scenario() -> None:
        gate = Gate(answer)
        batcher = started(gate)
        running = batcher.submit(Items((1,)))
        await gate.begun()
        waiting = await queued(batcher, [Items((2,)), Items((3,))])
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0)
        with pytest.raises(NotReady):
            await batcher.submit(Items((4,)))
        gate.open()
        await closing
        assert await running == ["a1"]
        for result in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(result, NotReady)
        await batcher.close()
        assert batcher.queued_rows == 0

    run(scenario())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_hangs_when_the_thread_dies() -> None:
    def die(_: Sequence[ItemPart]) -> list[Answers | Exception]:
        raise SystemExit

    async def scenario() -> None:
        gate = Gate(die)
        batcher = started(gate, max_batch_rows=1)
        tasks = await queued(batcher, [Items((1, 2)), Items((3,))])
        gate.open()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(result, NotReady)
        with pytest.raises(NotReady):
            await batcher.submit(Items((4,)))
        assert batcher.queued_rows == 0
        await batcher.close()

    run(scenario())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_hangs_who_came_while_the_thread_died() -> None:
    def die(_: Sequence[ItemPart]) -> list[Answers | Exception]:
        raise SystemExit

    async def scenario() -> None:
        gate = Gate(die)
        batcher = started(gate, max_inline_ms=HOUR_MS)
        first = batcher.submit(Items((1,)))
        await gate.begun()
        second = batcher.submit(Items((2,)))
        gate.open()
        assert batcher._thread is not None
        batcher._thread.join()  # the loop has yet to hear of it, and hears of `second` first
        for result in await asyncio.gather(first, second, return_exceptions=True):
            assert isinstance(result, NotReady)
        assert batcher.queued_rows == 0
        await batcher.close()

    run(scenario())


def test_before_start_it_is_not_ready_and_closing_it_is_fine() -> None:
    async def scenario() -> None:
        batcher = ItemBatcher(answer, Limits(), join=joined, on_batch=unobserved)
        with pytest.raises(NotReady):
            await batcher.submit(Items((1,)))
        await batcher.close()

    run(scenario())


def test_it_starts_once_in_a_loop_and_takes_no_empty_request() -> None:
    with pytest.raises(RuntimeError):
        ItemBatcher(answer, Limits(), join=joined, on_batch=unobserved).start()

    async def scenario() -> None:
        batcher = started(answer)
        with pytest.raises(RuntimeError):
            batcher.start()
        with pytest.raises(ValueError, match="at least one row"):
            await batcher.submit(Items(()))
        await batcher.close()

    run(scenario())


def test_max_delay_waits_for_company_until_the_batch_is_full() -> None:
    async def scenario() -> None:
        gate = Gate(answer)
        gate.open()
        batcher = started(gate, max_batch_rows=3, max_delay_ms=HOUR_MS)
        tasks = await queued(batcher, [Items((1,))])
        tasks += await queued(batcher, [Items((2,)), Items((3,))])
        await asyncio.gather(*tasks)
        assert len(gate.batches) == 1
        lone = batcher.submit(Items((4,)))
        await asyncio.sleep(0)
        await batcher.close()
        with pytest.raises(NotReady):
            await lone

    run(scenario())


def test_max_delay_ends_for_a_lone_request() -> None:
    async def scenario() -> None:
        batcher = started(answer, max_delay_ms=1)
        assert await batcher.submit(Items((1,))) == ["a1"]
        await batcher.close()

    run(scenario())


def test_the_observer_hears_of_each_request_once_and_of_each_row() -> None:
    rows: list[int] = []
    waits: list[float] = []

    def observe(count: int, seconds: Sequence[float]) -> None:
        rows.append(count)
        waits.extend(seconds)

    async def scenario() -> None:
        batcher = ItemBatcher(answer, Limits(max_batch_rows=4), join=joined, on_batch=observe)
        batcher.start()
        await asyncio.gather(batcher.submit(Items(tuple(range(10)))), batcher.submit(Items((1, 2))))
        await batcher.close()

    run(scenario())
    assert sum(rows) == 12
    assert len(waits) == 2
    assert min(waits) >= 0


def test_a_size_that_proved_quick_runs_on_the_loop_in_one_batch() -> None:
    batches: list[tuple[int, bool]] = []

    def note(parts: Sequence[ItemPart]) -> list[Answers | Exception]:
        batches.append((len(parts), current_thread() is main_thread()))
        return answer(parts)

    async def scenario() -> None:
        batcher = started(note, max_inline_ms=HOUR_MS)
        for _ in range(2):
            tasks = await queued(batcher, [Items((1,)), Items((2,)), Items((3,))])
            results = await asyncio.gather(*tasks)
            assert list(results) == [["a1"], ["a2"], ["a3"]]
        assert await batcher.submit(Items((1, 2, 3))) == ["a1", "a2", "a3"]
        assert batcher.queued_rows == 0
        await batcher.close()

    run(scenario())
    (_, first_inline), *others = batches
    assert not first_inline  # nobody knew yet how long it would take
    assert others[-2:] == [(3, True), (1, True)]


def test_while_the_thread_runs_a_batch_the_next_one_gathers() -> None:
    async def scenario() -> None:
        gate = Gate(answer)
        gate.open(1)
        batcher = started(gate, max_inline_ms=HOUR_MS)
        await batcher.submit(Items((1,)))  # one row is known to be quick from here on
        slow = batcher.submit(Items((1, 2)))
        await gate.begun()
        await gate.begun()
        quick = await queued(batcher, [Items((3,)), Items((4,))])
        gate.open()
        await asyncio.gather(slow, *quick)
        assert [len(batch) for batch in gate.batches] == [1, 1, 2]
        await batcher.close()

    run(scenario())


def test_what_is_quick_runs_here_once_the_thread_is_through() -> None:
    async def scenario() -> None:
        gate = Gate(answer)
        gate.open(1)
        batcher = started(gate, max_inline_ms=HOUR_MS)
        await batcher.submit(Items((1,)))  # one row is known to be quick from here on
        slow = batcher.submit(Items((1, 2)))
        await gate.begun()
        await gate.begun()
        quick = batcher.submit(Items((3,)))
        gate.open()
        assert await quick == ["a3"]
        assert slow.done()
        assert gate.threads == ["resmem-batch"] * 2 + ["MainThread"]
        await batcher.close()

    run(scenario())


def test_a_small_request_does_not_wait_for_the_whole_of_a_large_one() -> None:
    async def scenario() -> None:
        gate = Gate(answer)
        gate.open(1)
        batcher = started(gate, max_batch_rows=8, max_inline_ms=HOUR_MS)
        await batcher.submit(Items((1,)))
        await gate.begun()
        large = batcher.submit(Items(tuple(range(100))))
        await gate.begun()
        small = batcher.submit(Items((3,)))
        gate.open(2)
        assert await small == ["a3"]
        assert not large.done()
        gate.open()
        assert len(await large) == 100
        await batcher.close()

    run(scenario())


def test_what_cannot_run_as_one_batch_goes_to_the_thread() -> None:
    inline: list[bool] = []

    def note(parts: Sequence[ItemPart]) -> list[Answers | Exception]:
        inline.append(current_thread() is main_thread())
        return answer(parts)

    async def scenario() -> None:
        batcher = started(note, max_batch_rows=3, max_inline_ms=HOUR_MS)
        for size in (1, 2, 3):
            await batcher.submit(Items(tuple(range(size))))
        inline.clear()
        for crowd in ([Items((1,)), Items((2,), "b")], [Items((1, 2)), Items((3, 4))]):
            results = await asyncio.gather(*await queued(batcher, crowd))
            assert list(results) == [answers_of(one) for one in crowd]
        one, two = batcher.submit(Items((1,))), batcher.submit(Items((2,)))
        one.cancel()
        assert await two == ["a2"]
        await batcher.close()
        assert batcher.queued_rows == 0

    run(scenario())
    assert not any(inline)


def test_on_the_loop_too_a_bad_request_fails_alone() -> None:
    def unlucky(parts: Sequence[ItemPart]) -> list[Answers | Exception]:
        if any(13 in part.rows.numbers for part in parts):
            raise InvalidInput("unlucky")
        return answer(parts)

    async def scenario() -> None:
        batcher = started(unlucky, max_inline_ms=HOUR_MS)
        for size in (1, 2, 3):
            await batcher.submit(Items(tuple(range(size))))
        results = await asyncio.gather(
            *await queued(batcher, [Items((number,)) for number in (1, 13, 2)]),
            return_exceptions=True,
        )
        assert [str(result) for result in results] == ["['a1']", "unlucky", "['a2']"]
        await batcher.close()

    run(scenario())


def test_what_came_just_before_closing_is_told_so() -> None:
    async def scenario() -> None:
        batcher = started(answer, max_inline_ms=HOUR_MS)
        await batcher.submit(Items((1,)))
        late = batcher.submit(Items((2,)))
        await batcher.close()
        with pytest.raises(NotReady):
            await late
        assert batcher.queued_rows == 0

    run(scenario())


@pytest.mark.parametrize(
    "bad",
    [{"max_batch_rows": 0}, {"max_queue_rows": 0}],
)
def test_sizes_are_at_least_1(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        Limits(**bad)


@pytest.mark.parametrize("bad", [{"max_delay_ms": -1.0}, {"max_inline_ms": float("nan")}])
def test_no_time_is_negative(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="negative"):
        Limits(**bad)  # type: ignore[arg-type]


def test_it_gets_on_while_batches_end() -> None:
    async def scenario() -> None:
        gate = Gate(answer)
        batcher = started(gate)
        assert batcher.is_getting_on()
        first = batcher.submit(Items((1,)))
        await gate.begun()
        batcher.is_getting_on()  # the thread may have ended a batch before this one
        assert not batcher.is_getting_on(), "it runs the same batch as before"
        gate.open()
        await first
        assert batcher.is_getting_on()
        assert batcher.is_getting_on(), "it is idle"
        await batcher.close()
        assert batcher.is_getting_on(), "it has ended as it was told to"

    run(scenario())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_batch_thread_that_died_gets_on_no_more() -> None:
    """Requests were refused for ever by a worker that nobody replaced."""

    def dies(_: Sequence[ItemPart]) -> list[Answers | Exception]:
        raise SystemExit

    async def scenario() -> None:
        before = threading.enumerate()  # other services' batch threads among them
        batcher = started(dies)
        with pytest.raises(NotReady):
            await batcher.submit(Items((1,)))
        for thread in threading.enumerate():
            if thread.name == "resmem-batch" and thread not in before:
                await asyncio.to_thread(thread.join, PATIENCE_S)
        assert not batcher.is_getting_on()
        assert not batcher.is_getting_on()

    run(scenario())
