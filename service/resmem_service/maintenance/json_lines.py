"""Memories as JSON Lines: UTF-8, one object a line, numbers as short as float32 needs them."""

from collections.abc import Iterator
from pathlib import Path

import orjson

from resmem_service.maintenance.entry import Entry

__all__ = ["JsonLinesReader", "JsonLinesWriter"]


class JsonLinesReader:
    """Iterates over the lines that are not blank.

    Raises:
        OSError: there is no such file.
    """

    unit = "bytes"
    noun = "line"

    def __init__(self, path: Path) -> None:
        self._path = path
        self.total = path.stat().st_size

    def __iter__(self) -> Iterator[Entry]:
        with self._path.open("rb") as file:
            for number, line in enumerate(file, 1):
                text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if text.strip():
                    yield Entry(number, len(line), _decode(text))


class JsonLinesWriter:
    """Makes or replaces the file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def write(self, values: list[dict[str, object]]) -> None:
        """Adds a line for each object."""
        for value in values:
            self._file.write(
                orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)
            )

    def close(self) -> None:
        """Ends the file."""
        self._file.close()


def _decode(line: bytes) -> object:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return error
