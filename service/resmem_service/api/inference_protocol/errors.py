"""What a failure looks like to a client of the protocol: `{"error": "message"}`.

`/predict` has an object there. The protocol has a string, and Triton's client shows it as it is; so
`code` and `field` stand beside it, and the field is part of the sentence as well.
"""

from typing import Final

import orjson

__all__ = ["ROOT", "error_body", "is_spoken_at"]

ROOT: Final = "/v2"


def is_spoken_at(path: str) -> bool:
    """Whether a path is one of the protocol's, known or not."""
    return path == ROOT or path.startswith(f"{ROOT}/")


def error_body(code: str, message: str, field: str | None) -> bytes:
    """The body of an answer that is no success."""
    body = {"error": message, "code": code}
    if field is not None:
        body |= {"error": f"{field}: {message}", "field": field}
    return orjson.dumps(body)
