"""`.../infer` of a whole service: the same answers as `/predict`, in the protocol's words."""

import gzip
import zlib
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from tests.api.conftest import Start
from tests.api.inference_protocol import wire
from tests.api.inference_protocol.wire import arrays, error, infer
from tests.api.local_service import LocalService
from tests.api.test_middleware import value
from tests.conftest import FittedModel

BINARY: dict[str, Any] = {"parameters": {"binary_data_output": True}}


def predicted(service: LocalService, rows: Any) -> dict[str, Any]:
    """What `/predict` says, as outputs of the protocol."""
    answer = service.post("/predict", {"inputs": rows.tolist()})
    expected = answer.json()["predictions"]
    if "value" in expected[0]:
        return {
            key: np.array([[one[key]] for one in expected], np.float32)
            for key in ("value", "base", "correction")
        }
    return {
        "scores": np.array([one["scores"] for one in expected], np.float32),
        "base": np.array([one["base"]["scores"] for one in expected], np.float32),
        "correction": np.array([one["correction"] for one in expected], np.float32),
        "label": np.array([one["label"] for one in expected], dtype=np.object_),
    }


def same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].shape == array.shape, name
        assert np.array_equal(found[name], array), name


@pytest.mark.parametrize("rows", [1, 7, 300])
def test_a_classification(digits_service: LocalService, digits: FittedModel, rows: int) -> None:
    """300 rows run in two batches, and make JSON that arrives in pieces."""
    inputs = {"pixels": digits.inputs[:rows]}
    expected = predicted(digits_service, digits.inputs[:rows])
    same(arrays(infer(digits_service, "digits", wire.json_body(inputs))), expected)
    body, headers = wire.binary_body(inputs)
    same(arrays(infer(digits_service, "digits", body, headers=headers)), expected)
    body, headers = wire.binary_body(inputs, **BINARY)
    answer = infer(digits_service, "digits", body, headers=headers)
    assert answer.headers["content-type"] == "application/octet-stream"
    same(arrays(answer), expected)


@pytest.mark.parametrize("more", [{}, BINARY])
def test_a_regression(
    diabetes_service: LocalService, diabetes: FittedModel, more: dict[str, Any]
) -> None:
    rows = diabetes.inputs[:5]
    (name,) = (spec.name for spec in diabetes.bundle.manifest.inputs)
    answer = infer(diabetes_service, "diabetes", wire.json_body({name: rows}, **more))
    same(arrays(answer), predicted(diabetes_service, rows))


def test_the_answer_names_the_model_and_the_memory(
    digits_service: LocalService, digits: FittedModel
) -> None:
    body = wire.json_body({"pixels": digits.inputs[:2]}, id="Größe-7", outputs=[{"name": "label"}])
    answer = infer(digits_service, "digits", body)
    assert answer.headers["content-type"] == "application/json"
    assert wire.HEADER_LENGTH not in answer.headers
    assert answer.json() == {
        "model_name": "digits",
        "model_version": "1",
        "id": "Größe-7",
        "parameters": {"memory_size": 900, "memory_revision": 0},
        "outputs": [
            {
                "name": "label",
                "datatype": "BYTES",
                "shape": [2],
                "data": predicted(digits_service, digits.inputs[:2])["label"].tolist(),
            }
        ],
    }
    assert "id" not in infer(digits_service, "digits", {**body, "id": None}).json()


def test_outputs_come_as_asked_and_in_that_order(
    digits_service: LocalService, digits: FittedModel
) -> None:
    inputs = {"pixels": digits.inputs[:3]}
    expected = predicted(digits_service, digits.inputs[:3])
    wanted = [
        {"name": "label", "parameters": {"binary_data": True}},
        {"name": "base"},
        {"name": "scores", "parameters": {"binary_data": True}},
    ]
    answer = infer(digits_service, "digits", wire.json_body(inputs, outputs=wanted))
    same(arrays(answer), {name: expected[name] for name in ("label", "base", "scores")})


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("output", ["scores", "base", "correction"])
def test_classification_extension(
    digits_service: LocalService, digits: FittedModel, output: str, binary: bool
) -> None:
    rows = digits.inputs[:4]
    numbers = predicted(digits_service, rows)[output]
    wanted = [{"name": output, "parameters": {"classification": 3, "binary_data": binary}}]
    answer = infer(digits_service, "digits", wire.json_body({"pixels": rows}, outputs=wanted))
    found = arrays(answer)[output]
    assert found.shape == (4, 3)
    for row, told in zip(numbers, found, strict=True):
        order = np.argsort(-row, kind="stable")[:3]
        values, indexes, labels = zip(*(one.split(":") for one in told), strict=True)
        assert np.array_equal(np.array(values, np.float32), row[order])
        assert [int(index) for index in indexes] == order.tolist()
        assert list(labels) == [str(index) for index in order.tolist()]


def test_more_classes_than_there_are(digits_service: LocalService, digits: FittedModel) -> None:
    wanted = [{"name": "scores", "parameters": {"classification": 1000}}]
    body = wire.json_body({"pixels": digits.inputs[:1]}, outputs=wanted)
    assert arrays(infer(digits_service, "digits", body))["scores"].shape == (1, 10)


def test_a_regression_has_no_classes(diabetes_service: LocalService) -> None:
    row = wire.json_body({"x": np.zeros((1, 10), np.float32)})
    wanted = [{"name": "value", "parameters": {"classification": 1}}]
    answer = infer(diabetes_service, "diabetes", {**row, "outputs": wanted})
    error(answer, 422, "invalid_input", says="no classes", field="outputs.value")


def test_it_learns_between_two_requests(digits: FittedModel, start: Start) -> None:
    service = start(digits, max_weight=1e6)
    row = digits.inputs[:1]
    body = wire.json_body({"pixels": row})
    before = infer(service, "digits", body)
    lesson = {"inputs": row.tolist(), "targets": ["3"], "weights": [1e6]}
    assert service.post("/memorize", lesson).status_code == 201
    after = infer(service, "digits", body)
    assert arrays(before)["label"][0] != "3"
    assert arrays(after)["label"][0] == "3"
    assert after.json()["parameters"] == {"memory_size": 901, "memory_revision": 1}


@pytest.mark.parametrize("version", ["", "/versions/1"])
def test_a_version(digits_service: LocalService, digits: FittedModel, version: str) -> None:
    body = wire.json_body({"pixels": digits.inputs[:1]})
    answer = digits_service.post(f"/v2/models/digits{version}/infer", body)
    same(arrays(answer), predicted(digits_service, digits.inputs[:1]))


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/v2/models/other/infer", "'digits' is"),
        ("/v2/models/other/versions/1/infer", "'digits' is"),
        ("/v2/models/digits/versions/2/infer", "'1' is"),
        ("/v2/models/digits/versions/01/infer", "'1' is"),
        ("/v2/models/versions/infer", "'versions' is not served"),
        ("/v2/models/versions/versions/infer/infer", "'versions' is not served"),
    ],
)
def test_another_model(digits_service: LocalService, path: str, says: str) -> None:
    """Whatever the body is."""
    error(digits_service.post(path, b"nonsense"), 404, "model_not_found", says=says)


def test_what_is_wrong_is_told_in_the_protocols_words(digits: FittedModel, start: Start) -> None:
    service = start(digits, max_request_rows=4, max_body_bytes=4096, predict_keys="p")
    key = {"authorization": "Bearer p"}

    def ask(body: object, **headers: str) -> Any:
        return infer(service, "digits", body, headers={**key, **headers})

    good = np.zeros((1, 64), np.float32)
    error(infer(service, "digits", b""), 401, "unauthorized")
    error(ask(b"{"), 400, "malformed_body", says="not JSON")
    error(
        ask(wire.json_body({"pixels": good[:, :3]})),
        422,
        "invalid_input",
        says="has shape [1, 3]; each row must be float32 of shape [64]",
        field="inputs",
    )
    error(ask(b" " * 4097), 413, "body_too_large")
    many, headers = wire.binary_body({"pixels": np.zeros((5, 64), np.float32)})
    error(ask(many, **headers), 413, "too_many_rows", field="inputs")
    error(ask(b"x", **{"content-encoding": "br"}), 415, "unsupported_encoding", says="'br'")
    error(service.get("/v2/models/digits/infer", headers=key), 405, "method_not_allowed")
    error(service.get("/v2/nowhere", headers=key), 404, "not_found")
    assert set(service.get("/nowhere").json()) == {"error"}
    assert set(service.get("/v2nowhere").json()["error"]) == {"code", "message"}
    service.app.lifecycle.stop()
    answer = ask(wire.json_body({"pixels": good}))
    error(answer, 503, "not_ready")
    assert answer.headers["retry-after"]


def test_lone_surrogates_come_back_as_something(digits_service: LocalService) -> None:
    """orjson takes none in; through the path they come."""
    answer = digits_service.post("/v2/models/%ED%A0%80/infer", {})
    error(answer, 404, "model_not_found")


def zipped(body: bytes, coding: str) -> bytes:
    return gzip.compress(body) if coding == "gzip" else zlib.compress(body)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("rows", [1, 200])
def test_compressed_both_ways(
    digits_service: LocalService, digits: FittedModel, coding: str, rows: int
) -> None:
    inputs = digits.inputs[:rows]
    body, headers = wire.binary_body({"pixels": inputs}, **BINARY)
    answer = infer(
        digits_service,
        "digits",
        zipped(body, coding),
        headers={**headers, "content-encoding": coding, "accept-encoding": coding},
    )
    assert answer.headers.get("content-encoding") == (coding if rows > 1 else None)
    same(arrays(answer), predicted(digits_service, inputs))


@pytest.mark.parametrize("path", ["/predict", "/memorize"])
def test_the_other_endpoints_take_compressed_bodies(
    digits: FittedModel, start: Start, path: str
) -> None:
    service = start(digits)
    body: dict[str, Any] = {"inputs": digits.inputs[:40].tolist()}
    if path == "/memorize":
        body |= {"targets": digits.targets[:40].tolist(), "ids": [f"{i:050}" for i in range(40)]}
    plain = service.post("/predict", {"inputs": body["inputs"]}, headers={"accept-encoding": ""})
    assert "content-encoding" not in plain.headers
    request = service.client.build_request("POST", path, json=body)
    answer = service.post(
        path,
        zipped(request.content, "gzip"),
        headers={"content-encoding": "gzip", "accept-encoding": "deflate"},
    )
    assert answer.is_success, answer.text
    assert answer.headers["content-encoding"] == "deflate"
    if path == "/predict":
        assert answer.json() == plain.json()
    else:
        assert answer.json()["created"] == 40


def test_errors_are_never_compressed(digits_service: LocalService) -> None:
    """Triton's client reads them as they are."""
    body = wire.json_body({"\u20ac" * 2000: np.zeros((1, 64), np.float32)})
    answer = infer(digits_service, "digits", body, headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in answer.headers
    assert len(answer.content) > 1024
    error(answer, 422, "invalid_input", field="inputs." + "\u20ac" * 256 + "...")


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_bomb(digits: FittedModel, start: Start, coding: str) -> None:
    service = start(digits, max_body_bytes=200_000)
    bomb = zipped(b" " * 50_000_000, coding)
    assert len(bomb) < 200_000
    for path in ("/v2/models/digits/infer", "/predict", "/memorize"):
        answer = service.post(path, bomb, headers={"content-encoding": coding})
        assert answer.status_code == 413, answer.text


def test_below_a_path_of_another_app(digits_service: LocalService, digits: FittedModel) -> None:
    outer = FastAPI()
    outer.mount("/ml", digits_service.app.asgi)
    transport = httpx.ASGITransport(outer)
    body, headers = wire.binary_body({"pixels": digits.inputs[:3]})

    async def ask(path: str) -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://outer") as client:
            return await client.post(f"/ml/v2/models/{path}/infer", content=body, headers=headers)

    good = digits_service.run(ask("digits/versions/1"))
    same(arrays(good), predicted(digits_service, digits.inputs[:3]))
    error(digits_service.run(ask("other")), 404, "model_not_found")


def test_requests_are_counted_by_template(digits: FittedModel, start: Start) -> None:
    service = start(digits)
    body = wire.json_body({"pixels": digits.inputs[:2]})
    infer(service, "digits", body)
    infer(service, "nobody", body)
    service.post("/v2/models/digits/versions/1/infer", body)

    def count(route: str, code: str) -> float:
        return value(service, "http_requests_total", route=route, method="POST", code=code)

    assert count("/v2/models/{name}/infer", "200") == 1
    assert count("/v2/models/{name}/infer", "404") == 1
    assert count("/v2/models/{name}/versions/{version}/infer", "200") == 1
    assert value(service, "requests_rejected_total", reason="model_not_found") == 1
