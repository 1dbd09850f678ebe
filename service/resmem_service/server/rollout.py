"""One version on all workers or on none: prepared everywhere before it is served anywhere."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from resmem_service.errors import ReloadFailed
from resmem_service.server.messages import Abandon, Commit, Prepare
from resmem_service.server.worker_process import WorkerProcess

__all__ = ["commit_everywhere", "prepare_everywhere"]

_LOOK_S: Final = 0.05


async def prepare_everywhere(
    ready: Callable[[], Sequence[WorkerProcess]], model: str, *, seconds: float
) -> list[WorkerProcess]:
    """Has all workers load a version, `name/version`; they go on serving the old one.

    One worker goes first: a version that kills its process takes only this one along. Workers that
    become ready meanwhile are asked as well. One that hangs is not asked, but waited for until it
    gets on or is replaced.

    Args:
        ready: gives the workers that answer requests now.
        model: the version.
        seconds: the time for all of them.

    Returns those that have loaded it: when this returns, all that are ready.

    Raises:
        ReloadFailed: a worker could not, with its reason; all have dropped it again. Those that
            took too long are dismissed, since nothing else ends a load that is stuck.
    """
    prepared: list[WorkerProcess] = []
    asked: list[WorkerProcess] = []
    beats: dict[WorkerProcess, float] = {}
    try:
        async with asyncio.timeout(seconds):
            while left := [worker for worker in ready() if worker not in prepared]:
                asked = _getting_on(left, beats)[: None if prepared else 1]
                if not asked:
                    await asyncio.sleep(_LOOK_S)
                    continue
                told = [worker.carry_out(Prepare(model)) for worker in asked]
                for refusal in await asyncio.gather(*told):
                    if refusal is not None:
                        raise ReloadFailed(refusal)
                prepared += asked
    except TimeoutError:
        for worker in asked:
            if worker not in prepared:
                worker.retire("a reload takes too long")
        _abandon(prepared)
        raise ReloadFailed(f"{model} was not loaded within {seconds:.0f} s") from None
    except ReloadFailed:
        _abandon([*prepared, *asked])
        raise
    if not prepared:
        raise ReloadFailed("no worker is running; the log says why")
    return prepared


async def commit_everywhere(workers: Sequence[WorkerProcess], *, seconds: float) -> None:
    """Has all workers serve what they have prepared.

    One that dies now is replaced by another that serves it from the start, and so is one that does
    not answer within these seconds.
    """

    async def commit(worker: WorkerProcess) -> None:
        try:
            async with asyncio.timeout(seconds):
                if await worker.carry_out(Commit()) is None:
                    return
        except TimeoutError:
            pass
        worker.dismiss()

    await asyncio.gather(*(commit(worker) for worker in workers))


def _getting_on(
    workers: Sequence[WorkerProcess], beats: dict[WorkerProcess, float]
) -> list[WorkerProcess]:
    """Those whose heartbeat has moved since they were first looked at, which `beats` remembers."""
    return [
        worker
        for worker in workers
        if (beat := worker.heartbeat()) != beats.setdefault(worker, beat)
    ]


def _abandon(workers: Sequence[WorkerProcess]) -> None:
    # Not waited for: one that is stuck in loading drops it when it is through.
    for worker in workers:
        worker.tell(Abandon())
