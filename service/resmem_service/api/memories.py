"""`/memories`: look at what was memorized, and forget it.

Those that look are plain functions: FastAPI runs them in its threads, where they may read the
journal. Those that forget are coroutines: what waits for a locked journal must not take the threads
of those that look.
"""

from asyncio import wrap_future
from typing import Annotated, Final

import orjson
from fastapi import Path, Query, Request, Response

from resmem_service.api.cursor import cursor_of, sequence_in
from resmem_service.api.lifecycle import Lifecycle
from resmem_service.api.memorize import LONGEST_NAME
from resmem_service.api.memory_body import memory_json
from resmem_service.api.model_metadata import ModelMetadata
from resmem_service.api.query import check_query
from resmem_service.errors import InvalidInput, MemoryNotFound
from resmem_service.excerpt import excerpt
from resmem_service.memory.memory import ResidualMemory

__all__ = ["MemoriesRoutes"]

_LARGEST_PAGE: Final = 1000

_Id = Annotated[str, Path(max_length=LONGEST_NAME, description="The id of a memory.")]
_Source = Annotated[str, Query(min_length=1, max_length=LONGEST_NAME)]


class MemoriesRoutes:
    """The handlers of `/memories` and `/memories/{id}`."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle

    def list(
        self,
        request: Request,
        source: Annotated[
            str | None,
            Query(
                min_length=1,
                max_length=LONGEST_NAME,
                description="Only memories of this source; `fit` for those of the bundle.",
            ),
        ] = None,
        limit: Annotated[int, Query(ge=1, le=_LARGEST_PAGE)] = 100,
        after: Annotated[
            str | None,
            Query(
                max_length=LONGEST_NAME,
                description="`next` of the last page, as it was; or the id of a memory, to begin "
                "behind where it is now.",
            ),
        ] = None,
    ) -> Response:
        """Lists memories, oldest first: those added online, or those of one source.

        Who follows `next` to the end gets every memory that was there throughout exactly once,
        whatever is added, replaced and forgotten meanwhile. One that is replaced moves to the end.
        """
        check_query(request.url.query, ("source", "limit", "after"))
        metadata, memory = self._enter()
        memory.refresh()  # another worker may have forgotten some of the bundle's
        # One more than asked for tells whether there is a next page.
        start = 0 if after is None else _sequence_of(after, memory)
        found = memory.records.page(source=source, limit=limit + 1, after=start)
        page = found[:limit]
        return _json(
            {
                "memories": [memory_json(record, metadata) for record in page],
                "next": cursor_of(page[-1].sequence) if len(found) > limit else None,
            }
        )

    def find(self, request: Request, id: _Id) -> Response:
        """Shows one memory."""
        check_query(request.url.query, ())
        metadata, memory = self._enter()
        memory.refresh()
        return _json(memory_json(memory.records.find(id), metadata))

    async def forget(self, request: Request, id: _Id) -> Response:
        """Forgets one memory: gone from the next prediction at once."""
        check_query(request.url.query, ())
        _, memory = self._enter()
        if not await wrap_future(memory.request_forget(id)):
            raise MemoryNotFound(f"no memory has the id {id!r}", "id")
        return _forgotten(1, memory)

    async def forget_source(self, request: Request, source: _Source) -> Response:
        """Forgets every memory of a source, say one that turned out to be poisoned."""
        check_query(request.url.query, ("source",))
        _, memory = self._enter()
        return _forgotten(await wrap_future(memory.request_forget_source(source)), memory)

    def _enter(self) -> tuple[ModelMetadata, ResidualMemory]:
        backend = self._lifecycle.backend()
        return backend.metadata, backend.predictor.memory


def _sequence_of(after: str, memory: ResidualMemory) -> int:
    sequence = sequence_in(after)
    if sequence is not None:
        return sequence
    try:
        return memory.records.find(after).sequence
    except MemoryNotFound as error:
        raise InvalidInput(
            f"after is {excerpt(after)}, which is neither `next` of an earlier page nor the id of "
            "a memory; leave it out to begin with the oldest",
            "after",
        ) from error


def _forgotten(count: int, memory: ResidualMemory) -> Response:
    state = {"size": memory.size, "revision": memory.revision}
    return _json({"forgotten": count, "memory": state})


def _json(value: object) -> Response:
    return Response(
        orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json"
    )
