"""Large bodies are held against the grammar of JSON before they are parsed.

A parser keeps all other threads of a worker waiting: orjson holds the GIL, and where it refuses a
body it makes a str of it and counts its lines, 300 ms for 58 MB of anything. This pass over the
bytes holds nothing, allocates nothing, and ends at the first fault, so it is also what ends the
expansion of a compressed body early.
"""

from typing import Final

import orjson

from resmem_service.api import _json_scan
from resmem_service.errors import InvalidInput, MalformedBody

__all__ = ["CHECKED_BYTES", "DEEPEST", "check_grammar", "key_as_sent"]

CHECKED_BYTES: Final = 2**21
"""A body up to this size is left to the parser, which takes a few milliseconds whatever it is."""
DEEPEST: Final = 1024
"""Lists and objects inside one another that the decoder takes."""
_LONGEST_BYTES: Final = 2**20
"""Of one string or number: no field of a request takes one of more than a thousandth of that."""
_KEY_BYTES: Final = 1024
"""As much of a key as an error can name."""


def check_grammar(body: bytes | memoryview, *, whole: bool = True) -> bool:
    """Refuses a body that is not JSON, or not with numbers, strings and levels of a usual size.

    Numbers that are not finite pass as others do.

    Args:
        body: that of a request, or its beginning.
        whole: whether nothing follows it.

    Returns whether some number may be none that JSON or a float64 can hold.

    Raises:
        MalformedBody: it is not JSON; says where.
        InvalidInput: something in it is too long, or nested too deeply; names the key of the
            object.
    """
    kind, at, written = _json_scan.first_fault(body, _LONGEST_BYTES, DEEPEST, _KEY_BYTES)
    field = key_as_sent(written) if written else None
    match kind:
        case "syntax":
            raise MalformedBody(f"the body is not JSON: unexpected character at byte {at}")
        case "end" if whole:
            raise MalformedBody(f"the body is not JSON: it ends too early, at byte {at}")
        case "long":
            raise InvalidInput(
                f"holds or is a string or number of more than {_LONGEST_BYTES} bytes", field
            )
        case "deep":
            raise InvalidInput(f"is nested more than {DEEPEST} levels deep", field)
    return bool(kind)


def key_as_sent(written: bytes) -> str:
    """A key as it stands in a body; one that is damaged or cut stays as it is written."""
    try:
        return str(orjson.loads(written))
    except orjson.JSONDecodeError:
        return written.decode(errors="replace")
