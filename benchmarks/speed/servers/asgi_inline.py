"""A bare ASGI app with orjson that runs the model where it is: the least that Python can do."""

from typing import Any

import orjson

from benchmarks.speed.servers.model import DigitsModel

_model = DigitsModel()


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Rows in, scores out; no check of anything."""
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    scores = _model.scores(orjson.loads(body)["inputs"])
    answer = orjson.dumps({"scores": scores}, option=orjson.OPT_SERIALIZE_NUMPY)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(answer)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
