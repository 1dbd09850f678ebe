"""Names of the memories that came with the bundle: their ids, sequences and source."""

import re
from typing import Final

__all__ = ["SOURCE", "id_of", "row_of_id", "row_of_sequence", "sequence_of"]

SOURCE: Final = "fit"
_ID = re.compile(r"fit-(0|[1-9]\d{0,17})")


def sequence_of(row: int) -> int:
    """The sequence of a fitted row; below 0, so that it never meets one of the journal."""
    return -1 - row


def row_of_sequence(sequence: int) -> int:
    """The fitted row of a sequence below 0."""
    return -1 - sequence


def id_of(row: int) -> str:
    """The id that clients see."""
    return f"fit-{row}"


def row_of_id(id: str, rows: int) -> int | None:
    """The fitted row that an id names, if it names one of the first `rows`."""
    match = _ID.fullmatch(id)
    if match is None or int(match[1]) >= rows:
        return None
    return int(match[1])
