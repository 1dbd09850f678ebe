"""A bare ASGI app that reads the body and answers with a constant: what HTTP alone costs."""

from typing import Any

import orjson

_ANSWER = orjson.dumps({"scores": [[0.1] * 10]})
_HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", str(len(_ANSWER)).encode()),
]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers every request alike."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _ANSWER})
