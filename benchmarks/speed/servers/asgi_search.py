"""The bare ASGI app with the search as well: model, kernel and answer in one function, in line.

The least that a request with a memory can cost; the one server here that imports the service.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import orjson
from resmem_service.bundle.store import Bundle
from resmem_service.memory.search import _kernel
from resmem_service.memory.segments.sealed_segment import SealedSegment

from benchmarks.speed.servers.model import MODEL

_bundle = Bundle.open(Path(os.environ[MODEL]))
_manifest = _bundle.manifest
_rule = _manifest.parameters.rule()
_temperature = _manifest.parameters.temperature
_options = ort.SessionOptions()
_options.intra_op_num_threads = _options.inter_op_num_threads = 1
_session = ort.InferenceSession(_bundle.model_path, _options, providers=["CPUExecutionProvider"])
_segment = SealedSegment.open(_bundle.memories_path, _manifest.memory_shape())


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Rows in, scores and base scores out; no check of anything."""
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    rows = np.asarray(orjson.loads(body)["inputs"], np.float32)
    logits, embeddings = _session.run(["logits", "embedding"], {"pixels": rows})
    powers = np.exp((logits - logits.max(axis=1, keepdims=True)) / _temperature)
    base = powers / powers.sum(axis=1, keepdims=True)
    correction = _kernel.correct(
        [_segment.native],
        embeddings,
        _manifest.outputs,
        _rule.k,
        _rule.ef,
        _rule.sigma,
        _rule.alpha,
    )[0]
    found = {"scores": base + correction, "base": base}
    answer = orjson.dumps(found, option=orjson.OPT_SERIALIZE_NUMPY)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(answer)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
