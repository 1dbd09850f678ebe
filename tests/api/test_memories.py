"""`/memories`: to list, to show, to forget."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.api.conftest import Start
from tests.api.local_service import LocalService
from tests.api.test_memorize import memorize
from tests.api.test_predict import predict
from tests.conftest import FittedModel


@pytest.fixture
def taught(digits: FittedModel, start: Start) -> LocalService:
    """Knows rows 0 to 4 as a0 to a4 of source a, then row 5 as b of source b."""
    service = start(digits)
    rows, targets = digits.inputs.tolist(), digits.targets.tolist()
    memorize(
        service,
        inputs=rows[:5],
        targets=targets[:5],
        ids=[f"a{row}" for row in range(5)],
        source="a",
    )
    memorize(service, inputs=rows[5:6], targets=targets[5:6], ids=["b"], source="b")
    return service


def ids(service: LocalService, **query: str | int) -> tuple[list[str], str | None]:
    answer = service.get("/memories", params=query)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    return [one["id"] for one in body["memories"]], body["next"]


def test_find(taught: LocalService, digits: FittedModel) -> None:
    one = taught.get("/memories/a1").json()
    made = datetime.fromisoformat(one.pop("created"))
    assert abs(made - datetime.now(UTC)) < timedelta(days=1)
    target = str(digits.targets[1])
    assert one == {"id": "a1", "source": "a", "target": target, "weight": 1}


def test_pages(taught: LocalService) -> None:
    assert ids(taught) == (["a0", "a1", "a2", "a3", "a4", "b"], None)
    first, after = ids(taught, limit=4)
    assert first == ["a0", "a1", "a2", "a3"]
    assert after is not None
    assert ids(taught, limit=4, after=after) == (["a4", "b"], None)
    assert ids(taught, limit=6) == (["a0", "a1", "a2", "a3", "a4", "b"], None)
    assert ids(taught, source="b") == (["b"], None)
    assert ids(taught, source="nobody") == ([], None)
    first, after = ids(taught, source="fit", limit=2)
    assert first == ["fit-0", "fit-1"]
    assert after is not None
    assert ids(taught, source="fit", limit=2, after=after)[0] == ["fit-2", "fit-3"]


def test_a_page_begins_behind_an_id_too(taught: LocalService) -> None:
    assert ids(taught, limit=4, after="a3") == (["a4", "b"], None)
    assert ids(taught, source="fit", limit=2, after="fit-1")[0] == ["fit-2", "fit-3"]


def test_the_next_page_is_the_same_whatever_became_of_the_last_row(
    taught: LocalService, digits: FittedModel
) -> None:
    """By its id it was an empty page after the row was replaced, and 422 after it was forgotten."""
    _, after = ids(taught, limit=2)
    _, fitted = ids(taught, source="fit", limit=2)
    assert after is not None
    assert fitted is not None
    rows, targets = digits.inputs[9:10].tolist(), digits.targets[9:10].tolist()
    memorize(taught, inputs=rows, targets=targets, ids=["a1"], source="a")
    assert ids(taught, limit=9, after=after) == (["a2", "a3", "a4", "b", "a1"], None)
    for name in ("a1", "fit-1"):
        assert taught.delete(f"/memories/{name}").status_code == 200
    assert ids(taught, limit=9, after=after) == (["a2", "a3", "a4", "b"], None)
    assert ids(taught, source="fit", limit=2, after=fitted)[0] == ["fit-2", "fit-3"]


def test_forget(taught: LocalService, digits: FittedModel) -> None:
    row = digits.inputs[1].tolist()
    (before,) = predict(taught, inputs=[row], neighbours=1)
    assert before["neighbours"][0]["id"] == "a1"
    answer = taught.delete("/memories/a1")
    assert answer.status_code == 200
    assert answer.json()["forgotten"] == 1
    assert answer.json()["memory"]["size"] == 905
    (after,) = predict(taught, inputs=[row], neighbours=1)
    assert after["neighbours"][0]["id"] != "a1"
    assert taught.get("/memories/a1").status_code == 404
    assert taught.delete("/memories/a1").status_code == 404


def test_forget_a_row_of_the_bundle(taught: LocalService) -> None:
    assert taught.delete("/memories/fit-7").json()["memory"]["size"] == 905
    assert taught.get("/memories/fit-7").status_code == 404


def test_forget_a_source(taught: LocalService) -> None:
    assert taught.delete("/memories", params={"source": "a"}).json()["forgotten"] == 5
    assert ids(taught) == (["b"], None)
    assert taught.delete("/memories", params={"source": "a"}).json()["forgotten"] == 0


def test_forgotten_stays_forgotten(taught: LocalService, digits: FittedModel, start: Start) -> None:
    taught.delete("/memories/a1")
    taught.stop()
    again = start(digits)
    assert ids(again) == (["a0", "a2", "a3", "a4", "b"], None)


@pytest.mark.parametrize(
    ("method", "path", "field"),
    [
        ("DELETE", "/memories", "source"),
        ("DELETE", "/memories?source=", "source"),
        ("DELETE", f"/memories?source={'x' * 257}", "source"),
        ("GET", "/memories?source=", "source"),
        ("GET", "/memories?limit=0", "limit"),
        ("GET", "/memories?limit=1001", "limit"),
        ("GET", "/memories?limit=ten", "limit"),
        ("GET", "/memories?after=nobody", "after"),
        ("GET", "/memories?after=", "after"),
        ("GET", "/memories?after=~AAAAAAAAAAEAAAAA", "after"),
        ("GET", "/memories?sorce=a", "sorce"),
        ("GET", "/memories?limit=1&limit=2", "limit"),
        ("GET", f"/memories?limit={'9' * 5000}", "limit"),
        ("GET", "/memories?limit[]=1", "limit[]"),
        ("GET", "/memories?=", ""),
        ("DELETE", "/memories?source=a&source=b", "source"),
        ("DELETE", "/memories?source=a&sure=1", "sure"),
        ("GET", "/memories/a?b", "b"),
        ("DELETE", "/memories/a?b", "b"),
        ("GET", f"/memories/{'x' * 257}", "id"),
        ("DELETE", f"/memories/{'x' * 257}", "id"),
    ],
)
def test_refused(digits_service: LocalService, method: str, path: str, field: str) -> None:
    answer = digits_service.request(method, path)
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["code"] == "invalid_input"
    assert answer.json()["error"]["field"] == field


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("limit=-1", "is '-1'; it must be at least 1"),
        ("limit=1001", "is '1001'; it must be at most 1000"),
        ("limit=ten", "is 'ten'; it must be a whole number"),
        ("source=", "is empty"),
        (f"source={'x' * 300}", "has 300 characters; at most 256 are taken"),
        ("sorce=a", "unknown query parameter 'sorce'; the known ones are: source, limit, after"),
    ],
)
def test_what_is_wrong_is_told_with_the_value(
    digits_service: LocalService, query: str, says: str
) -> None:
    message = digits_service.request("GET", f"/memories?{query}").json()["error"]["message"]
    assert message.startswith(says)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("escaped", ["%ff", "%ED%A0%80"])
def test_a_query_that_is_not_utf8_names_nothing(
    digits_service: LocalService, method: str, escaped: str
) -> None:
    """U+FFFD in its place may be the source of other memories."""
    answer = digits_service.request(method, f"/memories?source={escaped}")
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "malformed_request"


@pytest.mark.parametrize("name", ["nobody", "fit-900", "fit--1", "fit-", "a/b", ""])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_not_found(digits_service: LocalService, method: str, name: str) -> None:
    answer = digits_service.request(method, f"/memories/{name}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "memory_not_found"
