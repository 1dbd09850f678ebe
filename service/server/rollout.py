"""One version on all workers or on none: prepared everywhere before it is served anywhere."""

import asyncio
from collections.abc import Sequence
from typing import Final

from service.errors import ReloadFailed
from service.server.messages import Abandon, Commit, Prepare
from service.server.worker_process import WorkerProcess

__all__ = ["commit_everywhere", "prepare_everywhere"]

_PATIENCE_S: Final = 600.0


async def prepare_everywhere(workers: Sequence[WorkerProcess], model: str) -> None:
    """Has all workers load a version, `name/version`; they go on serving the old one.

    One worker goes first: a version that kills its process takes only this one along.

    Raises:
        ReloadFailed: a worker could not, with its reason; all have dropped it again.
    """
    if not workers:
        raise ReloadFailed("no worker is running; the log says why")
    try:
        async with asyncio.timeout(_PATIENCE_S):
            for some in (workers[:1], workers[1:]):
                told = [worker.carry_out(Prepare(model)) for worker in some]
                for refusal in await asyncio.gather(*told):
                    if refusal is not None:
                        raise ReloadFailed(refusal)
    except TimeoutError:
        await _abandon(workers)
        raise ReloadFailed(f"{model} was not loaded within {_PATIENCE_S:.0f} s") from None
    except ReloadFailed:
        await _abandon(workers)
        raise


async def commit_everywhere(workers: Sequence[WorkerProcess]) -> None:
    """Has all workers serve what they have prepared; one that dies now is replaced by then."""
    await asyncio.gather(*(worker.carry_out(Commit()) for worker in workers))


async def _abandon(workers: Sequence[WorkerProcess]) -> None:
    # Not waited for: one that is stuck in loading drops it when it is through.
    for worker in workers:
        worker.tell(Abandon())
