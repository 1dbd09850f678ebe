import pytest
from resmem_service.api.admission import Admission
from resmem_service.errors import QueueFull


class Queue:
    """Remembers how many rows it was asked for."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.asked: list[int] = []

    def check_room(self, rows: int) -> None:
        self.asked.append(rows)
        if rows > self.room:
            raise QueueFull("full")


def test_before_any_request_a_single_row_is_asked_for() -> None:
    queue = Queue(1)
    Admission().check(b"x" * 1_000_000, queue)
    assert queue.asked == [1]
    with pytest.raises(QueueFull):
        Admission().check(b"x", Queue(0))


def test_rows_are_guessed_from_the_largest_of_late() -> None:
    admission, queue = Admission(), Queue(1000)
    admission.note(b"x" * 100, 1)
    admission.note(b"x" * 400, 10)
    admission.check(b"x" * 10_000, queue)
    assert queue.asked == [101]
    with pytest.raises(QueueFull):
        admission.check(b"x" * 10_000, Queue(50))
    admission.check(b"x" * 99, Queue(1))


def test_rows_that_became_smaller_are_believed_in_time() -> None:
    admission, queue = Admission(), Queue(1000)
    admission.note(b"x" * 10_000, 1)
    for _ in range(1000):
        admission.note(b"x" * 100, 1)
    admission.check(b"x" * 10_000, queue)
    assert queue.asked == [100]
