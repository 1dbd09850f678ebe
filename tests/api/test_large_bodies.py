import asyncio
import threading

import pytest
from resmem_service.api.large_bodies import LargeBodies


def test_others_are_answered_while_a_large_body_is_decoded() -> None:
    async def main() -> str:
        answered = threading.Event()
        asyncio.get_running_loop().call_later(0.01, answered.set)
        return await LargeBodies().run(lambda: "decoded" if answered.wait(30) else "alone")

    assert asyncio.run(main()) == "decoded"


def test_one_at_a_time() -> None:
    lock, inside, most = threading.Lock(), 0, 0

    def work(_: int) -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        threading.Event().wait(0.005)
        with lock:
            inside -= 1

    async def main() -> None:
        large = LargeBodies()
        await asyncio.gather(*(large.run(work, number) for number in range(12)))

    asyncio.run(main())
    assert most == 1


def test_errors_come_back() -> None:
    def fail() -> None:
        raise ValueError("of the body")

    with pytest.raises(ValueError, match="of the body"):
        asyncio.run(LargeBodies().run(fail))
