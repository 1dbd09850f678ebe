"""The routes that describe the service: `/model`, `/healthz`, `/readyz`, `/metrics`."""

import asyncio

import orjson
from fastapi import Response

from resmem_service.api.lifecycle import Lifecycle
from resmem_service.telemetry.metrics import CONTENT_TYPE, Metrics

__all__ = ["StatusRoutes"]


class StatusRoutes:
    """The handlers."""

    def __init__(self, lifecycle: Lifecycle, metrics: Metrics) -> None:
        self._lifecycle = lifecycle
        self._metrics = metrics

    async def model(self) -> Response:
        """Shows the model that is served, how it scored and what its memory holds."""
        backend = self._lifecycle.backend()
        metadata, memory = backend.metadata, backend.predictor.memory
        await asyncio.to_thread(memory.refresh)  # another worker may have changed it
        statistics = memory.statistics()
        body = {
            "name": metadata.name,
            "version": metadata.version,
            "task": metadata.task,
            "inputs": [
                {"name": spec.name, "dtype": spec.dtype, "shape": spec.shape}
                for spec in metadata.inputs
            ],
            "classes": metadata.classes,
            "outputs": metadata.outputs,
            "embedding": metadata.embedding,
            "parameters": metadata.parameters,
            "teaching_weight": metadata.teaching_weight,
            "scores": metadata.scores,
            "provider": metadata.provider,
            "checksums": metadata.checksums,
            "memory": {
                "size": memory.size,
                "revision": statistics.revision,
                "sealed_rows": statistics.sealed_rows,
                "growing_rows": statistics.growing_rows,
                "segments": statistics.segments,
                "bytes": statistics.nbytes,
                "journal": memory.journal_engine,
                "limits": metadata.memory_limits,
            },
        }
        return Response(orjson.dumps(body), media_type="application/json")

    async def healthz(self) -> Response:
        """Says that the process is up."""
        return Response(b'{"status":"ok"}', media_type="application/json")

    async def readyz(self) -> Response:
        """Says whether to send requests here: 503 until the model is warm, and before the end.

        503 as well where predictions fail, since a file of the bundle was damaged. Whatever else is
        damaged or does not work costs no prediction: the answer stays 200, and `degraded` names it.
        Of several workers each speaks for all that take requests; of damage, as it sees it itself.
        """
        faults = await self._lifecycle.ready()
        body: dict[str, object] = {"status": "ready"}
        if faults:
            body["degraded"] = [
                {"reason": fault.reason, "message": fault.message} for fault in faults
            ]
        return Response(orjson.dumps(body), media_type="application/json")

    async def metrics(self) -> Response:
        """Tells Prometheus all metrics, those of all workers together."""
        text = await asyncio.to_thread(self._metrics.scrape)
        return Response(text, media_type=CONTENT_TYPE)
