"""Keys and scopes, apart from the app and on its routes."""

import pytest
from resmem_service.api.auth import KeyRing, Scope
from resmem_service.api.routes import ROUTES, Route
from resmem_service.errors import Forbidden, Unauthorized

from tests.api.conftest import Start
from tests.api.test_errors import error
from tests.conftest import FittedModel

SCOPES: tuple[Scope, ...] = ("predict", "memorize", "admin")
GUARDED = [route for route in ROUTES if route.scope is not None]


def ring() -> KeyRing:
    return KeyRing({"predict": ["p", "both"], "memorize": ["m", "both"], "admin": ["a"]})


@pytest.mark.parametrize("scope", SCOPES)
def test_without_keys_it_is_open(scope: Scope) -> None:
    for keys in (KeyRing({}), KeyRing({"predict": [], "admin": ()})):
        keys.admit(None, scope)
        keys.admit(b"Bearer whatever", scope)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(
    "header",
    [None, b"", b"p", b"Bearer", b"Bearer ", b"Basic p", b"Bearer x", b"Bearer pp", b"Bearer P"],
)
def test_nobody_knows_it(header: bytes | None, scope: Scope) -> None:
    with pytest.raises(Unauthorized):
        ring().admit(header, scope)


@pytest.mark.parametrize(
    ("key", "allowed"),
    [("p", {"predict"}), ("m", {"memorize"}), ("both", {"predict", "memorize"}), ("a", {*SCOPES})],
)
@pytest.mark.parametrize("scheme", ["Bearer ", "bearer  ", "BEARER "])
def test_scopes(key: str, allowed: set[Scope], scheme: str) -> None:
    for scope in SCOPES:
        header = f"{scheme}{key}".encode()
        if scope in allowed:
            ring().admit(header, scope)
        else:
            with pytest.raises(Forbidden):
                ring().admit(header, scope)


def test_a_key_of_any_characters() -> None:
    key = "schlüssel ☃"
    KeyRing({"predict": [key]}).admit(b"Bearer " + key.encode(), "predict")


def test_who_may_use_which_route() -> None:
    """The whole list: a route that is missing here is one that nobody thought about."""
    assert {(route.method, route.path): route.scope for route in ROUTES} == {
        ("POST", "/predict"): "predict",
        ("GET", "/model"): "predict",
        ("POST", "/memorize"): "memorize",
        ("GET", "/memories"): "memorize",
        ("GET", "/memories/{id}"): "memorize",
        ("DELETE", "/memories/{id}"): "memorize",
        ("DELETE", "/memories"): "admin",
        ("POST", "/admin/reload"): "admin",
        ("GET", "/healthz"): None,
        ("GET", "/readyz"): None,
        ("GET", "/metrics"): None,
        ("GET", "/v2"): None,
        ("GET", "/v2/health/live"): None,
        ("GET", "/v2/health/ready"): None,
        ("GET", "/v2/models/{name}"): "predict",
        ("GET", "/v2/models/{name}/ready"): None,
        ("POST", "/v2/models/{name}/infer"): "predict",
        ("GET", "/v2/models/{name}/versions/{version}"): "predict",
        ("GET", "/v2/models/{name}/versions/{version}/ready"): None,
        ("POST", "/v2/models/{name}/versions/{version}/infer"): "predict",
        ("GET", "/docs"): None,
        ("GET", "/openapi.json"): None,
    }


def test_on_the_routes(digits: FittedModel, start: Start) -> None:
    keys = {"predict": "p", "memorize": "m", "admin": "a"}
    service = start(digits, predict_keys="p", memorize_keys=["m", "m2"], admin_keys="a")

    def status(route: Route, key: str | None) -> int:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        path = route.path.format(id="a/b", name="digits", version="1")
        answer = service.request(route.method, path, headers=headers)
        if answer.status_code == 401:
            assert answer.headers["www-authenticate"] == "Bearer"
        if answer.status_code in (401, 403):
            code = {401: "unauthorized", 403: "forbidden"}[answer.status_code]
            if route.path.startswith("/v2"):
                assert answer.json()["code"] == code
            else:
                error(answer, answer.status_code, code)
        return answer.status_code

    for route in ROUTES:
        if route.scope is None:
            assert status(route, None) == 200
            continue
        assert status(route, None) == status(route, "x") == 401
        for scope, key in keys.items():
            admitted = scope in (route.scope, "admin")
            assert (status(route, key) not in (401, 403)) is admitted, (route, scope)


def test_keys_show_nowhere(digits: FittedModel, start: Start) -> None:
    service = start(digits, predict_keys="very-secret")
    answer = service.post(
        "/predict", {"inputs": 1}, headers={"Authorization": "Bearer very-secret"}
    )
    assert "very-secret" not in answer.text
    assert "very-secret" not in repr(service.app._settings)
