"""Text of a client in messages: quoted, but never more of it than a reader needs. A leaf."""

import math
from typing import Final

__all__ = ["LONGEST_NAMED", "excerpt", "shortened"]

LONGEST_NAMED: Final = 256
"""Characters of a name of the client's in the field of an error."""
_LONGEST: Final = 200
"""Characters of one quoted value."""
_IN_JSON: Final = {None: "null", True: "true", False: "false"}
_SHARE: Final = 4
"""What an element of a list may take is this part of what the list may."""
_MOST_SHOWN: Final = 8
"""Elements of the longest list whose elements are shown."""


def excerpt(value: object, longest: int = _LONGEST) -> str:
    """A value of a client's as a message may quote it, in JSON's words: whole if it is short.

    Costs no more than the part that is quoted. Long lists and objects are named, not shown.
    """
    match value:
        case str() if len(value) > longest:
            return f"{value[:longest]!r}... ({len(value)} characters)"
        case bytes() if len(value) > longest:
            return f"{value[:longest].decode('latin-1')!r}... ({len(value)} bytes)"
        case bytes():
            return repr(value.decode("latin-1"))
        case int() if abs(value) >= 2**64:  # its digits may be a million, at quadratic cost
            return "an integer of more than 64 bits"
        case None | bool():
            return _IN_JSON[value]
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case str() | int() | float():
            return repr(value)
        case list() if len(value) <= _MOST_SHOWN and longest > _MOST_SHOWN:
            text = f"[{', '.join(excerpt(each, longest // _SHARE) for each in value)}]"
            return text if len(text) <= longest else f"a list of length {len(value)}"
        case list() | tuple():
            return f"a list of length {len(value)}"
        case dict():
            return "an object"
        case _:
            return f"a value of type {type(value).__name__}"


def shortened(text: str, longest: int) -> str:
    """A text whole if it is short, else its beginning."""
    return text if len(text) <= longest else f"{text[:longest]}..."
