"""Text of strangers on one line of a log or of a terminal.

Sources, ids, paths and names of classes are whatever a client or a file says: a newline would start
a line that somebody else seems to have written, an escape sequence would command the terminal.
"""

import re
from typing import Final

__all__ = ["printable"]

_UNPRINTABLE: Final = re.compile(
    # Control characters, line separators, marks that change the direction of text, and halves of a
    # character, which no encoding can write.
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: str) -> str:
    """The same text on one line: what is not printed is written as an escape such as `\\x1b`."""
    return _UNPRINTABLE.sub(lambda found: _escape(found[0]), text)


def _escape(character: str) -> str:
    code = ord(character)
    return _SHORT.get(character) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")
