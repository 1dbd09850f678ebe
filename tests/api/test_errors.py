"""The error table of the contract, line by line."""

import errno
import logging
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future
from http import HTTPStatus
from typing import Any

import httpx
import pytest
from numpy.typing import NDArray
from resmem_service.errors import JournalUnavailable, QueueFull
from resmem_service.inference.base_model import BaseModel, BaseOutput
from resmem_service.inference.rows import Rows
from resmem_service.memory.journal.journal import Appended
from resmem_service.memory.memory import ResidualMemory
from resmem_service.memory.records import Records

from tests.api.conftest import Start
from tests.api.local_service import LocalService
from tests.conftest import FittedModel

ROW = [0.0] * 64
DATA_ROUTES = ("/predict", "/memorize")


def error(answer: httpx.Response, status: int, code: str, field: str | None = None) -> str:
    """Checks an answer against the contract and returns its message."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    body = answer.json()
    assert body.keys() == {"error"}
    found = dict(body["error"])
    message: str = found.pop("message")
    assert message
    assert "Traceback" not in answer.text
    assert found == ({"code": code} if field is None else {"code": code, "field": field})
    return message


@pytest.mark.parametrize("path", DATA_ROUTES)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{'inputs': []}",
        b'{"inputs": [[1,]]}',
        b'{"inputs": [[NaN]]',
        b'{"inputs": "\xff"}',
        b'{"ids": ["NaN \\ud800"]}',
        b"[" * 3000 + b"]" * 3000,
        b"[NaN," * 3000 + b"0" + b"]" * 3000,
        "{}".encode("utf-16"),
    ],
)
def test_not_json(digits_service: LocalService, path: str, body: bytes) -> None:
    error(digits_service.post(path, body), 400, "malformed_body")


@pytest.mark.parametrize("body", ["{}".encode("utf-16"), b'{"\xe9": 1}', b'{"\xc0\xaf": 1}'])
def test_another_encoding_is_said_to_be_one(digits_service: LocalService, body: bytes) -> None:
    response = digits_service.post("/predict", body)
    error(response, 400, "malformed_body")
    assert "is not UTF-8" in response.json()["error"]["message"]


@pytest.mark.parametrize("path", DATA_ROUTES)
@pytest.mark.parametrize("body", [b"[]", b"null", b"7", b'"inputs"'])
def test_no_object(digits_service: LocalService, path: str, body: bytes) -> None:
    error(digits_service.post(path, body), 422, "invalid_input")


@pytest.mark.parametrize("path", DATA_ROUTES)
@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{}", "inputs"),
        (b'{"input": []}', "input"),
        (b'{"inputs": [[0]], "": 1}', ""),
        (b'{"inputs": [[0]], "inputs": [[0]]}', "inputs"),
        (b'{"inputs": [[0]], "in\\u0070uts": [[0]]}', "inputs"),
        (b'{"inputs": {"image": [[0]], "image": [[1]]}}', "inputs"),
        (b'{"inputs": {"im\\u0061ge": [[0]], "image": [[1]]}}', "inputs"),
        ('{"inputs": [[0]], "é": 1}'.encode(), "é"),
    ],
)
def test_keys(digits_service: LocalService, path: str, body: bytes, field: str) -> None:
    error(digits_service.post(path, body), 422, "invalid_input", field)


def test_a_word_seen_twice_is_no_key_there_twice(digits: FittedModel, start: Start) -> None:
    body = {"inputs": [ROW], "targets": [1], "ids": ["inputs"], "source": 'caf\u00e9 "ids": : '}
    assert start(digits).post("/memorize", body).status_code == 201


RAGGED = [ROW, ROW[1:]]


@pytest.mark.parametrize("path", DATA_ROUTES)
@pytest.mark.parametrize(
    ("inputs", "field"),
    [
        ([], "inputs"),
        ([[]], "inputs"),
        (ROW, "inputs"),
        ([ROW[1:]], "inputs"),
        ([[ROW]], "inputs"),
        (RAGGED, "inputs"),
        ([["0"] * 64], "inputs"),
        ([[True] * 64], "inputs"),
        ([[None] * 64], "inputs"),
        ([[1e39] * 64], "inputs"),
        ([[10**400] * 64], "inputs"),
        (None, "inputs"),
        (7, "inputs"),
        ("rows", "inputs"),
        ({}, "inputs.pixels"),
        ({"pixel": [ROW]}, "inputs.pixel"),
        ({"pixels": [ROW], "age": [1]}, "inputs.age"),
    ],
)
def test_inputs(digits_service: LocalService, path: str, inputs: object, field: str) -> None:
    body = {"inputs": inputs} | ({"targets": [1]} if path == "/memorize" else {})
    error(digits_service.post(path, body), 422, "invalid_input", field)


@pytest.mark.parametrize("levels", [3, 20, 24, 40, 500, 1023, 1024, 1100, 30_000, 10**6])
@pytest.mark.parametrize(
    ("path", "field"),
    [("/predict", each) for each in ("inputs", "neighbours", "top", "fields", "other")]
    + [("/memorize", each) for each in ("inputs", "targets", "ids", "weights", "source", "other")],
)
def test_nested_too_deeply(
    digits_service: LocalService, path: str, field: str, levels: int
) -> None:
    """92 bytes took 2 to the power of their depth: a month at 40 levels."""
    fields = {"inputs": [ROW]} | ({"targets": [1]} if path == "/memorize" else {})
    parts = [f'"{key}":{value}'.encode() for key, value in fields.items() if key != field]
    deep = f'"{field}":'.encode() + b"[" * levels + b"0" + b"]" * levels
    body = b"{" + b",".join([*parts, deep]) + b"}"
    error(digits_service.post(path, body), 422, "invalid_input", field)


def test_a_long_key_is_not_quoted_whole(digits_service: LocalService) -> None:
    body = b'{"' + b"k" * 10**6 + b'": 0}'
    answer = digits_service.post("/predict", body)
    assert answer.status_code == 422
    assert len(answer.content) < 1000
    assert answer.json()["error"]["field"].startswith("kkkk")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_not_finite(digits_service: LocalService, number: str) -> None:
    body = f'{{"inputs": [[{",".join([number] * 64)}]]}}'.encode()
    message = error(digits_service.post("/predict", body), 422, "invalid_input", "inputs")
    assert "row 0" in message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("neighbours", -1),
        ("neighbours", 101),
        ("neighbours", 1.0),
        ("neighbours", True),
        ("neighbours", "1"),
        ("neighbours", None),
        ("top", 0),
        ("top", -1),
        ("top", 1.5),
        ("top", True),
        ("top", "all"),
        ("fields", "label"),
        ("fields", ["value"]),
        ("fields", ["labels"]),
        ("fields", [7]),
        ("fields", [["label"]]),
        ("fields", {"label": 1}),
    ],
)
def test_options(digits_service: LocalService, field: str, value: object) -> None:
    answer = digits_service.post("/predict", {"inputs": [ROW], field: value})
    error(answer, 422, "invalid_input", field)


@pytest.mark.parametrize(
    ("path", "field", "written", "says"),
    [
        ("/predict", "neighbours", "-1", "is -1; it must be a whole number from 0 to 100"),
        ("/predict", "neighbours", "NaN", "is NaN; it must"),
        ("/predict", "top", "1e400", "is Infinity; it must be a whole number from 1"),
        ("/predict", "top", "true", "is true; it must"),
        ("/predict", "fields", '"label"', "is 'label'; it must be a list of some of: label"),
        ("/predict", "fields", '["label", "lable"]', "has 'lable'; each must be one of: label"),
        ("/memorize", "targets", '["sevn"]', "row 0 has 'sevn', which is no class"),
        ("/memorize", "targets", "7", "is 7; it must be a list with one entry for each row"),
        ("/memorize", "weights", "[0]", "row 0 has 0, which is no weight"),
        ("/memorize", "weights", '[{"a": 1}]', "row 0 has an object, which is no weight"),
        ("/memorize", "ids", "[null, 7]", "has 2 entries for 1 rows"),
        ("/memorize", "ids", "[7]", "row 0 has the id 7; it must be a string of 1 to 256"),
        ("/memorize", "source", "[]", "is []; it must be a string of 1 to 256 characters"),
    ],
)
def test_what_is_wrong_is_told_with_the_value(
    digits_service: LocalService, path: str, field: str, written: str, says: str
) -> None:
    targets = '"targets": [1], ' if path == "/memorize" and field != "targets" else ""
    body = f'{{"inputs": [{ROW}], {targets}"{field}": {written}}}'.encode()
    message = error(digits_service.post(path, body), 422, "invalid_input", field)
    assert message.startswith(says)


@pytest.mark.parametrize("field", ["targets", "ids", "weights", "source"])
def test_no_more_of_a_value_is_told_than_a_reader_needs(
    digits_service: LocalService, field: str
) -> None:
    wrong: object = "x" * 100_000
    body = {"inputs": [ROW], "targets": [1], field: wrong if field == "source" else [wrong]}
    assert len(error(digits_service.post("/memorize", body), 422, "invalid_input", field)) < 400


def test_most_neighbours_is_a_setting(digits: FittedModel, start: Start) -> None:
    service = start(digits, max_neighbours=3)
    assert service.post("/predict", {"inputs": [ROW], "neighbours": 3}).status_code == 200
    message = error(
        service.post("/predict", {"inputs": [ROW], "neighbours": 4}),
        422,
        "invalid_input",
        "neighbours",
    )
    assert "3" in message


@pytest.mark.parametrize("path", DATA_ROUTES)
@pytest.mark.parametrize("chunked", [False, True])
def test_body_too_large(digits: FittedModel, start: Start, path: str, chunked: bool) -> None:
    service = start(digits, max_body_bytes=1024)

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b" " * 256

    content: Any = chunks() if chunked else b" " * 1025
    answer = service.request("POST", path, content=content)
    assert ("content-length" in answer.request.headers) is not chunked
    error(answer, 413, "body_too_large")


def test_a_body_in_chunks_is_read_whole(digits: FittedModel, start: Start) -> None:
    service = start(digits)

    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"inputs": [['
        yield b",".join([b"0"] * 64)
        yield b"]]}"

    assert service.request("POST", "/predict", content=chunks()).status_code == 200


@pytest.mark.parametrize("path", DATA_ROUTES)
def test_too_many_rows(digits: FittedModel, start: Start, path: str) -> None:
    service = start(digits, max_request_rows=2)
    body = {"inputs": [ROW] * 3, "targets": [1] * 3} if path == "/memorize" else {"inputs": [1] * 3}
    error(service.post(path, body), 413, "too_many_rows", "inputs")


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "BREW"])
@pytest.mark.parametrize("path", ["/", "/predicts", "/predict/", "/v1/predict", "/favicon.ico"])
def test_unknown_routes(digits_service: LocalService, method: str, path: str) -> None:
    error(digits_service.request(method, path), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/predict", "POST"),
        ("PUT", "/memorize", "POST"),
        ("POST", "/memories/a", "GET, DELETE"),
        ("PUT", "/memories?source=a", "GET, DELETE"),
        ("POST", "/model", "GET"),
        ("BREW", "/healthz", "GET"),
    ],
)
def test_other_methods(digits_service: LocalService, method: str, path: str, allowed: str) -> None:
    answer = digits_service.request(method, path)
    error(answer, 405, "method_not_allowed")
    assert allowed in answer.headers["allow"]


def test_queue_full(digits: FittedModel, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused on arrival while the model is busy; and served again once it is not."""
    busy, go_on = threading.Event(), threading.Event()
    service = start(digits, max_queue_rows=4, max_request_rows=4)
    run = BaseModel.run

    def slow(self: BaseModel, rows: Rows) -> BaseOutput:
        busy.set()
        assert go_on.wait(30)
        return run(self, rows)

    monkeypatch.setattr(BaseModel, "run", slow)

    async def overload() -> list[httpx.Response]:
        import asyncio

        first = asyncio.ensure_future(service.client.post("/predict", json={"inputs": [ROW] * 3}))
        await asyncio.to_thread(busy.wait, 30)
        refused = await service.client.post("/predict", json={"inputs": [ROW] * 2})
        # Of this size, it is refused before anybody looks at what it says.
        unread = await service.client.post("/predict", content=b"?" * len(refused.request.content))
        go_on.set()
        later = await service.client.post("/predict", json={"inputs": [ROW]})
        return [await first, refused, unread, later]

    first, refused, unread, later = service.run(overload())
    error(refused, 429, "queue_full")
    error(unread, 429, "queue_full")
    assert int(refused.headers["retry-after"]) > 0
    assert (first.status_code, later.status_code) == (200, 200)


def test_journal_unwritable(
    digits: FittedModel, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = start(digits)

    def full(*_: object, **__: object) -> Future[list[Appended]]:
        failed: Future[list[Appended]] = Future()
        failed.set_exception(JournalUnavailable(f"errno {errno.ENOSPC}: no space left"))
        return failed

    monkeypatch.setattr(ResidualMemory, "append_all", full)
    answer = service.post("/memorize", {"inputs": [ROW], "targets": [1]})
    error(answer, 507, "journal_unavailable")
    assert service.post("/predict", {"inputs": [ROW]}).status_code == 200


def test_memory_queue_full(
    digits: FittedModel, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = start(digits)

    def full(*_: object, **__: object) -> Future[list[Appended]]:
        raise QueueFull("the disk does not keep up")

    monkeypatch.setattr(ResidualMemory, "append_all", full)
    answer = service.post("/memorize", {"inputs": [ROW], "targets": [1]})
    error(answer, 429, "queue_full")
    assert answer.headers["retry-after"]


@pytest.mark.parametrize("path", ["/predict", "/memorize", "/memories", "/model"])
def test_our_own_mistakes(
    digits: FittedModel,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    path: str,
) -> None:
    """500, a body that tells nothing of the inside, a traceback in the log under the same id."""
    service = start(digits)

    def broken(*_: object, **__: object) -> NDArray[Any]:
        raise ZeroDivisionError("secret")

    for owner, name in (
        (ResidualMemory, "correct"),
        (ResidualMemory, "statistics"),
        (Records, "page"),
    ):
        monkeypatch.setattr(owner, name, broken)
    with caplog.at_level(logging.ERROR):
        if path in DATA_ROUTES:
            body = {"inputs": [ROW]} | ({"targets": [1]} if path == "/memorize" else {})
            answer = service.post(path, body)
        else:
            answer = service.get(path)
    message = error(answer, 500, "internal")
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] in message
    (record,) = [one for one in caplog.records if one.exc_info]
    assert answer.headers["x-request-id"] in record.getMessage()
    assert "ZeroDivisionError: secret" in caplog.text


def test_before_the_end(digits: FittedModel, start: Start) -> None:
    """Nothing but readiness fails, so that no request does while others go elsewhere."""
    service = start(digits)
    service.app.lifecycle.drain()
    answer = service.get("/readyz")
    error(answer, 503, "not_ready")
    assert answer.headers["retry-after"]
    for path in ("/model", "/memories", "/healthz", "/metrics"):
        assert service.get(path).status_code == HTTPStatus.OK
    assert "connection" not in service.post("/predict", {"inputs": [ROW]}).headers
    service.app.lifecycle.close_connections()
    for answer in (
        service.post("/predict", {"inputs": [ROW]}),
        service.get("/readyz"),
        service.get("/model"),
        service.get("/nowhere"),
    ):
        assert answer.headers["connection"] == "close"


def test_at_the_end(digits: FittedModel, start: Start) -> None:
    service = start(digits)
    service.app.lifecycle.stop()
    for path in ("/readyz", "/model", "/memories", "/memories/a"):
        answer = service.get(path)
        error(answer, 503, "not_ready")
        assert answer.headers["retry-after"]
    for path in DATA_ROUTES:
        error(service.post(path, {"inputs": [ROW]}), 503, "not_ready")
    error(service.delete("/memories/a"), 503, "not_ready")
    for path in ("/healthz", "/metrics", "/docs", "/openapi.json"):
        assert service.get(path).status_code == HTTPStatus.OK
