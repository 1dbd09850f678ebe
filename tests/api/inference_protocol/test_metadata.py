"""What the service says of itself in the protocol's words."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel
from resmem_service import __version__
from resmem_service.api.inference_protocol import schemas
from resmem_service.api.inference_protocol.datatypes import DATATYPES, datatype_of
from resmem_service.api.lifecycle import Backend

from tests.api.conftest import Start
from tests.api.inference_protocol import wire
from tests.api.inference_protocol.wire import error, infer
from tests.api.local_service import LocalService
from tests.conftest import FittedModel

BOTH = pytest.mark.parametrize("version", ["", "/versions/1"])


def test_the_server(digits_service: LocalService) -> None:
    assert digits_service.get("/v2").json() == {
        "name": "resmem",
        "version": __version__,
        "extensions": ["binary_tensor_data", "classification"],
    }
    assert digits_service.get("/v2/health/live").json() == {"live": True}
    assert digits_service.get("/v2/health/ready").json() == {"ready": True}


@BOTH
def test_a_classification(digits_service: LocalService, version: str) -> None:
    assert digits_service.get(f"/v2/models/digits{version}").json() == {
        "name": "digits",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "pixels", "datatype": "FP32", "shape": [-1, 64]}],
        "outputs": [
            {"name": "scores", "datatype": "FP32", "shape": [-1, 10]},
            {"name": "base", "datatype": "FP32", "shape": [-1, 10]},
            {"name": "correction", "datatype": "FP32", "shape": [-1, 10]},
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
        ],
    }


def test_a_regression(diabetes_service: LocalService) -> None:
    outputs = diabetes_service.get("/v2/models/diabetes").json()["outputs"]
    assert outputs == [
        {"name": name, "datatype": "FP32", "shape": [-1, 1]}
        for name in ("value", "base", "correction")
    ]


@BOTH
def test_a_model_is_ready(digits_service: LocalService, version: str) -> None:
    answer = digits_service.get(f"/v2/models/digits{version}/ready")
    assert answer.json() == {"name": "digits", "ready": True}


@pytest.mark.parametrize("end", ["", "/ready"])
@pytest.mark.parametrize("model", ["other", "other/versions/1", "digits/versions/2"])
def test_another_model(digits_service: LocalService, model: str, end: str) -> None:
    error(digits_service.get(f"/v2/models/{model}{end}"), 404, "model_not_found", says="not served")


def test_before_the_end(digits: FittedModel, start: Start) -> None:
    service = start(digits)
    service.app.lifecycle.drain()
    for path in ("/v2/health/live", "/v2", "/v2/models/digits"):
        assert service.get(path).status_code == 200
    for path in ("/v2/health/ready", "/v2/models/digits/ready"):
        error(service.get(path), 503, "not_ready")
    service.app.lifecycle.stop()
    assert service.get("/v2/health/live").status_code == 200
    error(service.get("/v2/models/digits"), 503, "not_ready")


def test_the_metadata_follow_a_reload(digits: FittedModel, start: Start) -> None:
    service = start(digits)
    backend = service.app.lifecycle.backend()
    service.app.lifecycle.serve(Backend(replace(backend.metadata, version="2"), backend.predictor))
    assert service.get("/v2/models/digits").json()["versions"] == ["2"]
    error(service.get("/v2/models/digits/versions/1"), 404, "model_not_found")


def test_a_client_that_follows_the_metadata_is_understood(digits_service: LocalService) -> None:
    described = digits_service.get("/v2/models/digits").json()
    inputs = {
        one["name"]: np.zeros([3 if axis == -1 else axis for axis in one["shape"]], np.float32)
        for one in described["inputs"]
    }
    outputs = [{"name": one["name"]} for one in described["outputs"]]
    answer = infer(digits_service, "digits", wire.json_body(inputs, outputs=outputs)).json()
    for told, given in zip(described["outputs"], answer["outputs"], strict=True):
        assert given["datatype"] == told["datatype"]
        assert given["shape"] == [3 if axis == -1 else axis for axis in told["shape"]]


def test_bodies_fit_their_schemas(digits_service: LocalService, digits: FittedModel) -> None:
    """Strictly: nothing missing, nothing that the schema does not know."""

    def fits(model: type[BaseModel], answer: Any) -> None:
        model.model_validate_json(answer.content, strict=True)

    fits(schemas.ServerMetadataBody, digits_service.get("/v2"))
    fits(schemas.LiveBody, digits_service.get("/v2/health/live"))
    fits(schemas.ServerReadyBody, digits_service.get("/v2/health/ready"))
    fits(schemas.ModelMetadataBody, digits_service.get("/v2/models/digits"))
    fits(schemas.ModelReadyBody, digits_service.get("/v2/models/digits/ready"))
    fits(schemas.InferenceErrorBody, digits_service.get("/v2/models/x"))
    body = wire.json_body({"pixels": digits.inputs[:2]}, id="a")
    schemas.InferBody.model_validate(body, strict=True)
    fits(schemas.InferredBody, infer(digits_service, "digits", body))


def test_every_dtype_of_an_input_has_a_datatype() -> None:
    for name, dtype in DATATYPES.items():
        assert datatype_of(dtype.name) == name
    assert len(DATATYPES) == 12
