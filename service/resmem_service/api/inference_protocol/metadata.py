"""What there is to ask: the server, the model, and whether they are ready."""

from typing import Final

import orjson
from fastapi import Request, Response

from resmem_service import __version__
from resmem_service.api.inference_protocol.address import check_model
from resmem_service.api.inference_protocol.datatypes import datatype_of
from resmem_service.api.inference_protocol.outputs import outputs_of
from resmem_service.api.lifecycle import Lifecycle
from resmem_service.api.model_metadata import ModelMetadata

__all__ = ["MetadataRoutes"]

_SERVER: Final = {
    "name": "resmem",
    "version": __version__,
    "extensions": ["binary_tensor_data", "classification"],
}
_PLATFORM: Final = "onnxruntime_onnx"


class MetadataRoutes:
    """The handlers."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle

    async def server(self) -> Response:
        """Says which server this is, and which extensions of the protocol it has."""
        return _json(_SERVER)

    async def live(self) -> Response:
        """Says that the process is up."""
        return _json({"live": True})

    async def ready(self) -> Response:
        """Says whether to send requests here: 503 until the model is warm, and before the end."""
        await self._lifecycle.ready()
        return _json({"ready": True})

    async def model(self, request: Request) -> Response:
        """Shows the model's inputs and outputs; an axis of -1 is of any length."""
        metadata = self._metadata(request)
        inputs = [
            (spec.name, datatype_of(spec.dtype), (-1, *(axis or -1 for axis in spec.shape)))
            for spec in metadata.inputs
        ]
        return _json(
            {
                "name": metadata.name,
                "versions": [metadata.version],
                "platform": _PLATFORM,
                "inputs": [_tensor(*each) for each in inputs],
                "outputs": [_tensor(*each) for each in outputs_of(metadata)],
            }
        )

    async def model_ready(self, request: Request) -> Response:
        """Says whether the model answers: 503 as for the server, 404 where another is served."""
        metadata = self._metadata(request)
        await self._lifecycle.ready()
        return _json({"name": metadata.name, "ready": True})

    def _metadata(self, request: Request) -> ModelMetadata:
        metadata = self._lifecycle.backend().metadata
        check_model(metadata, request.path_params["name"], request.path_params.get("version"))
        return metadata


def _tensor(name: str, datatype: str, shape: tuple[int, ...]) -> dict[str, object]:
    return {"name": name, "datatype": datatype, "shape": shape}


def _json(body: object) -> Response:
    return Response(orjson.dumps(body), media_type="application/json")
