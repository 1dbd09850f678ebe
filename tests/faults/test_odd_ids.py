"""Whatever a client may call a memory, it finds and forgets it by that name, over real sockets."""

import http.client
import json
from collections.abc import Iterator
from urllib.parse import quote, urlsplit

import pytest

from tests.conftest import FittedModel
from tests.end_to_end.server import Server

ODD = [
    " leading",
    "trailing ",
    "a/b",
    "/",
    "//a//",
    "..",
    "../model",
    "a/../b",
    ".",
    "%",
    "%2F",
    "%41",
    "100%zz",
    "?after=x",
    "#part",
    "a&b=c;d,e",
    "a+b",
    "\"quoted\" 'twice'",
    "back\\slash",
    "tab\tline\nreturn\r",
    "\n",
    "nul\0here",
    "\x7f\u202e\ufeff",
    "Grüße",
    "e\u0301",
    "\u00e9",
    "日本語",
    "😀" * 256,
    "fit-",
    "fit-00",
    "fit-900",
]


@pytest.fixture(scope="module")
def server(digits: FittedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(digits.store, tmp_path_factory.mktemp("state")) as running:
        yield running


def ask(server: Server, method: str, path: str) -> tuple[int, dict[str, object]]:
    """A request whose path goes out as it stands: other clients tidy dots and slashes up."""
    connection = http.client.HTTPConnection(urlsplit(str(server.client.base_url)).netloc)
    try:
        connection.putrequest(method, path)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_a_memory_of_any_name(server: Server, digits: FittedModel) -> None:
    rows = digits.inputs[: len(ODD)].tolist()
    body = {"inputs": rows, "targets": [3] * len(rows), "ids": ODD}
    assert server.client.post("/memorize", json=body).json()["ids"] == ODD
    listed = server.client.get("/memories").json()["memories"]
    assert [memory["id"] for memory in listed] == ODD
    for row, name in zip(rows, ODD, strict=True):
        (nearest,) = server.predict(row, neighbours=1)["neighbours"]
        assert nearest["id"] == name
        status, _ = ask(server, "GET", f"/memories?limit=1&after={quote(name, safe='')}")
        assert status == 200
        for safe in ("", "/"):  # a client may leave slashes as they are
            status, memory = ask(server, "GET", f"/memories/{quote(name, safe=safe)}")
            assert (status, memory["id"]) == (200, name)
    for left, name in enumerate(ODD, 1 - len(ODD)):
        path = f"/memories/{quote(name, safe='')}"
        assert ask(server, "DELETE", path)[0] == 200
        assert ask(server, "GET", path)[0] == 404
        assert ask(server, "DELETE", path)[0] == 404
        assert len(server.client.get("/memories").json()["memories"]) == -left


@pytest.mark.parametrize("name", ODD)
def test_a_source_of_any_name(server: Server, digits: FittedModel, name: str) -> None:
    row = digits.inputs[100].tolist()
    body = {"inputs": [row], "targets": [3], "ids": ["one"], "source": name}
    assert server.client.post("/memorize", json=body).status_code == 201
    query = f"/memories?source={quote(name, safe='')}"
    _, page = ask(server, "GET", query)
    assert [memory["source"] for memory in page["memories"]] == [name]  # type: ignore[attr-defined]
    status, forgotten = ask(server, "DELETE", query)
    assert (status, forgotten["forgotten"]) == (200, 1)


@pytest.mark.parametrize("half", ['"\\ud800"', '"a\\udc00b"'])
def test_half_a_character_is_no_name(server: Server, digits: FittedModel, half: str) -> None:
    """JSON can say what no UTF-8 can."""
    body = json.dumps({"inputs": digits.inputs[:1].tolist(), "targets": [3], "ids": ["?"]})
    answer = server.client.post("/memorize", content=body.replace('"?"', half))
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "malformed_body"


@pytest.mark.parametrize("path", ["%ff", "%c3%28", "%ED%A0%80"])
def test_bytes_that_are_no_characters_name_nothing(server: Server, path: str) -> None:
    assert ask(server, "GET", f"/memories/{path}")[0] == 404
    assert ask(server, "DELETE", f"/memories/{path}")[0] == 404
