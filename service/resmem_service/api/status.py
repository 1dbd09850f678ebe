"""What the service says of itself: `/model`, `/healthz`, `/readyz`, `/metrics`."""

import asyncio

import orjson
from fastapi import Response

from resmem_service.api.lifecycle import Gate
from resmem_service.telemetry.metrics import CONTENT_TYPE, Metrics

__all__ = ["StatusRoutes"]


class StatusRoutes:
    """The handlers."""

    def __init__(self, gate: Gate, metrics: Metrics) -> None:
        self._gate = gate
        self._metrics = metrics

    async def model(self) -> Response:
        """Shows the model that is served, how it scored and what its memory holds."""
        backend = self._gate.enter()
        card, memory = backend.card, backend.predictor.memory
        await asyncio.to_thread(memory.refresh)  # another worker may have changed it
        statistics = memory.statistics()
        body = {
            "name": card.name,
            "version": card.version,
            "task": card.task,
            "inputs": [
                {"name": spec.name, "dtype": spec.dtype, "shape": spec.shape}
                for spec in card.inputs
            ],
            "classes": card.classes,
            "outputs": card.outputs,
            "embedding": card.embedding,
            "parameters": card.parameters,
            "teaching_weight": card.teaching_weight,
            "scores": card.scores,
            "provider": card.provider,
            "checksums": card.checksums,
            "memory": {
                "size": memory.size,
                "revision": statistics.revision,
                "sealed_rows": statistics.sealed_rows,
                "growing_rows": statistics.growing_rows,
                "segments": statistics.segments,
                "bytes": statistics.nbytes,
                "journal": memory.journal_engine,
                "limits": card.memory_limits,
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
        faults = await self._gate.ready()
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
