"""Where the id of a memory stands in a path, as the router must be told.

An id may hold anything, slashes and line breaks included, and what was taught under it must be
found and forgotten under it. Starlette's own `path` ends at a line break.
"""

from typing import Final

from starlette.convertors import Convertor, register_url_convertor

__all__ = ["ID_PATH"]


class _Id(Convertor[str]):
    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("memory_id", _Id())

ID_PATH: Final = "/memories/{id:memory_id}"
