"""The query of a request, whose parameters are as known as the keys of a body."""

from collections.abc import Collection
from typing import Final
from urllib.parse import parse_qsl

from resmem_service.errors import InvalidInput, MalformedRequest
from resmem_service.excerpt import excerpt

__all__ = ["check_query"]

_LONGEST: Final = 60


def check_query(query: str, known: Collection[str]) -> None:
    """Refuses a query that would be read otherwise than it was meant.

    A misspelt `source` would list or forget what nobody asked for, of two equal parameters one
    would not count, and an unescaped `?` in the id of a memory would name another memory.

    Raises:
        InvalidInput: a parameter is not in `known`, or is given twice; names it.
        MalformedRequest: the query is not UTF-8 once its escapes are decoded.
    """
    if not query:
        return
    try:
        names = [name for name, _ in parse_qsl(query, keep_blank_values=True, errors="strict")]
    except UnicodeDecodeError:
        raise MalformedRequest(
            "the query of the request is not UTF-8 once its %-escapes are decoded"
        ) from None
    for number, name in enumerate(names):
        if name not in known:
            listed = f"the known ones are: {', '.join(known)}" if known else "there are none here"
            raise InvalidInput(
                f"unknown query parameter {excerpt(name, _LONGEST)}; {listed} (a `?` that belongs "
                "to an id is written as %3F)",
                name,
            )
        if name in names[:number]:
            raise InvalidInput("the query parameter is given twice", name)
