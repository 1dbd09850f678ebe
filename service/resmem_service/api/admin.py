"""`/admin`: what an operator does to a service that runs."""

from collections.abc import Awaitable, Callable

import orjson
from fastapi import Response

from resmem_service.api.lifecycle import Lifecycle
from resmem_service.reloaded import Reloaded

__all__ = ["AdminRoutes", "Reload"]

Reload = Callable[[], Awaitable[Reloaded]]
"""Brings the version that the store marks current into service, in every worker or in none.

Raises:
    ReloadFailed: it will not do; the version that was served still is.
    QueueFull: too many wait for one already.
"""


class AdminRoutes:
    """The handlers."""

    def __init__(self, lifecycle: Lifecycle, reload: Reload) -> None:
        self._lifecycle = lifecycle
        self._reload = reload

    async def reload(self) -> Response:
        """Loads the version that the store marks current and swaps it in, without a pause.

        Requests under way end on the version that they began with. A version that fails its checks
        or its warm-up leaves the old one serving. Rolling back is the same call, once `current`
        was set back: `resmem use NAME/VERSION`.
        """
        self._lifecycle.backend()
        done = await self._reload()
        body = {
            "model": _model(done.served),
            "previous": _model(done.previous),
            "pinned": done.pinned,
        }
        return Response(orjson.dumps(body), media_type="application/json")


def _model(name: str) -> dict[str, str]:
    model, _, version = name.rpartition("/")
    return {"name": model, "version": version}
