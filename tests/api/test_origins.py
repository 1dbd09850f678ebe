"""Web pages of strangers, and what a body may be said to be."""

import pytest
from resmem_service.api.origins import Origins, check_media_type
from resmem_service.api.routes import ROUTES
from resmem_service.errors import ForeignOrigin, InvalidSettings, UnsupportedMediaType
from resmem_service.settings import load

from tests.api.conftest import Start
from tests.api.local_service import LocalService
from tests.api.test_errors import ROW, error
from tests.conftest import FittedModel

CHANGES = [route for route in ROUTES if route.method not in {"GET", "HEAD"}]
PAGE = "https://page.example"
FORMS = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x")


def path_of(template: str) -> str:
    for part, value in (("{name}", "digits"), ("{version}", "1"), ("{id}", "fit-0")):
        template = template.replace(part, value)
    return template


@pytest.mark.parametrize("route", CHANGES, ids=lambda route: f"{route.method} {route.path}")
@pytest.mark.parametrize("origin", [PAGE, "null", "http://localhost:3000", "https://resmem", ""])
def test_a_page_of_a_stranger_changes_nothing(
    digits_service: LocalService, route: object, origin: str
) -> None:
    """A page could teach and reload a server on its visitor's machine."""
    method, path = route.method, path_of(route.path)  # type: ignore[attr-defined]
    before = digits_service.get("/model").json()["memory"]
    answer = digits_service.request(
        method, path, json={"inputs": [ROW]}, headers={"origin": origin, "host": "resmem:8080"}
    )
    if path.startswith("/v2"):
        assert (answer.status_code, answer.json()["code"]) == (403, "foreign_origin")
    else:
        message = error(answer, 403, "foreign_origin")
        assert "cors_origins" in message
    assert "access-control-allow-origin" not in answer.headers
    assert digits_service.get("/model").json()["memory"] == before


@pytest.mark.parametrize("kind", [*FORMS, "text/json", "image/png", "", "application/jsonx"])
@pytest.mark.parametrize(
    "route", [route for route in CHANGES if route.method == "POST"], ids=lambda route: route.path
)
def test_a_body_that_is_said_to_be_something_else(
    digits_service: LocalService, route: object, kind: str
) -> None:
    path = path_of(route.path)  # type: ignore[attr-defined]
    answer = digits_service.post(path, b"{}", headers={"content-type": kind})
    assert answer.status_code == 415
    assert "unsupported_media_type" in answer.text
    assert "application/json" in answer.text
    assert answer.headers["accept"] == "application/json"


@pytest.mark.parametrize(
    "kind",
    [None, "application/json", "application/json; charset=utf-8", "Application/problem+JSON"],
)
def test_json_under_its_names_and_under_none(
    digits_service: LocalService, kind: str | None
) -> None:
    """Many programs name nothing; a page's browser then names the page's origin."""
    headers = {} if kind is None else {"content-type": kind}
    body = b'{"inputs": [[%b]]}' % b",".join([b"0"] * 64)
    answer = digits_service.post("/predict", body, headers=headers)
    assert ("content-type" in answer.request.headers) is (kind is not None)
    assert answer.status_code == 200


def test_bytes_are_for_the_inference_protocol_alone() -> None:
    check_media_type(b"application/octet-stream", binary=True)
    with pytest.raises(UnsupportedMediaType):
        check_media_type(b"application/octet-stream", binary=False)


@pytest.mark.parametrize(
    ("origin", "host", "keyed", "own"),
    [
        ("http://localhost:8080", "localhost:8080", False, True),
        ("https://LOCALHOST:8080", "localhost:8080", False, True),
        ("http://127.0.0.1:8080", "127.0.0.1:8080", False, True),
        ("http://[::1]:8080", "[::1]:8080", False, True),
        ("http://resmem", "resmem", False, True),
        ("http://me.localhost", "me.localhost", False, True),
        ("http://localhost:3000", "localhost:8080", False, False),
        ("http://localhost", "localhost:8080", False, False),
        ("null", "null", False, False),
        ("http://localhost", None, False, False),
        # Its owner has let the name point here meanwhile; with keys the page has none.
        ("http://evil.example:8080", "evil.example:8080", False, False),
        ("http://127.0.0.1.evil.example", "127.0.0.1.evil.example", False, False),
        ("https://resmem.example", "resmem.example", True, True),
        ("https://evil.example", "resmem.example", True, False),
    ],
)
def test_the_pages_of_the_service_itself(
    origin: str, host: str | None, keyed: bool, own: bool
) -> None:
    origins = Origins(keyed=keyed)
    told = ("POST", origin.encode(), None if host is None else host.encode())
    if own:
        origins.check(*told)
    else:
        with pytest.raises(ForeignOrigin, match="cors_origins"):
            origins.check(*told)


def test_reading_is_not_refused_but_left_unreadable_to_the_page(
    digits_service: LocalService,
) -> None:
    answer = digits_service.get("/model", headers={"origin": PAGE})
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("listed", [PAGE, "*", f"https://other.example, {PAGE}"])
def test_a_page_that_is_listed(digits: FittedModel, start: Start, listed: str) -> None:
    service = start(digits, cors_origins=listed)
    ask = {"origin": PAGE, "access-control-request-method": "POST"}
    told = service.request("OPTIONS", "/predict", headers=ask)
    assert (told.status_code, told.content) == (200, b"")
    assert told.headers["access-control-allow-methods"] == "POST"
    assert "content-type" in told.headers["access-control-allow-headers"]
    for body, status in (({"inputs": [ROW]}, 200), ({"inputs": 7}, 422)):
        answer = service.post("/predict", body, headers={"origin": PAGE})
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert answer.headers["vary"] == "origin"
    answer = service.get("/model", headers={"origin": PAGE})
    assert answer.headers["access-control-allow-origin"] == PAGE
    both = service.request("OPTIONS", "/memories/x", headers=ask).headers
    assert both["access-control-allow-methods"] == "GET, DELETE"
    # A form is refused all the same.
    form = service.post("/predict", b"{}", headers={"origin": PAGE, "content-type": FORMS[0]})
    assert form.status_code == 415


def test_a_page_that_is_not_listed_where_others_are(digits: FittedModel, start: Start) -> None:
    service = start(digits, cors_origins="https://other.example")
    headers = {"origin": PAGE, "access-control-request-method": "POST"}
    assert service.request("OPTIONS", "/predict", headers=headers).status_code == 405
    error(service.post("/predict", {"inputs": [ROW]}, headers=headers), 403, "foreign_origin")


def test_a_preflight_needs_no_key_and_the_request_does(digits: FittedModel, start: Start) -> None:
    service = start(digits, cors_origins=PAGE, predict_keys="k")
    headers = {"origin": PAGE, "access-control-request-method": "POST"}
    assert service.request("OPTIONS", "/predict", headers=headers).status_code == 200
    answer = service.post("/predict", {"inputs": [ROW]}, headers={"origin": PAGE})
    assert answer.status_code == 401
    assert answer.headers["access-control-allow-origin"] == PAGE


@pytest.mark.parametrize(
    "wrong", ["page.example", "https://page.example/", "https://a b", "https://"]
)
def test_what_is_no_origin_is_no_setting(wrong: str) -> None:
    with pytest.raises(InvalidSettings, match=r"cors.origins: .*is not an origin"):
        load(cors_origins=wrong)
