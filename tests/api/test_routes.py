"""The public surface: routes, and what OpenAPI says of them."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi.openapi.models import OpenAPI
from pydantic import BaseModel
from resmem_service.api import schemas
from resmem_service.api.inference_protocol.schemas import InferBody
from resmem_service.api.routes import EVERYWHERE, OTHER, ROUTES, series, template_of

from tests.api.local_service import LocalService

DOCUMENTED = [route for route in ROUTES if route.path not in ("/docs", "/openapi.json")]


@pytest.fixture(scope="module")
def document(digits_service: LocalService) -> dict[str, Any]:
    answer = digits_service.get("/openapi.json")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def test_openapi_is_valid(document: dict[str, Any]) -> None:
    OpenAPI.model_validate(document)
    assert document["openapi"].startswith("3.1")


def test_openapi_is_encoded_once_for_a_root_path(digits_service: LocalService) -> None:
    app = digits_service.app.asgi
    behind = httpx.AsyncClient(
        transport=httpx.ASGITransport(app, root_path="/proxied"), base_url="http://resmem"
    )
    for _ in range(2):
        first = digits_service.get("/openapi.json")
        before, app.openapi_schema = app.openapi_schema, {"openapi": "built anew"}
        try:
            assert digits_service.get("/openapi.json").content == first.content
            proxied = digits_service.run(behind.get("/proxied/openapi.json"))
            assert proxied.json() == {"openapi": "built anew", "servers": [{"url": "/proxied"}]}
        finally:
            app.openapi_schema = before
    assert "servers" not in digits_service.get("/openapi.json").json()


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(node: object) -> Iterator[str]:
        if isinstance(node, dict):
            for key, value in node.items():
                if key == "$ref":
                    yield value
                else:
                    yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    found = set(references(document))
    assert found
    for reference in found:
        node: Any = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


def test_openapi_lists_every_route_and_its_answers(document: dict[str, Any]) -> None:
    listed = {
        (method.upper(), path): {int(code) for code in operation["responses"]}
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert listed == {
        (route.method, route.path): {*route.codes, *EVERYWHERE} for route in DOCUMENTED
    }


def test_openapi_says_what_an_error_looks_like(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        body = "InferenceErrorBody" if path.startswith("/v2") else "ErrorBody"
        for operation in operations.values():
            for code, answer in operation["responses"].items():
                if int(code) >= 400:
                    schema = answer["content"]["application/json"]["schema"]
                    assert schema == {"$ref": f"#/components/schemas/{body}"}


def test_openapi_has_every_parameter_of_a_path(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for operation in operations.values():
            listed = [one["name"] for one in operation.get("parameters", []) if one["in"] == "path"]
            assert listed == re.findall(r"{(\w+)}", path)


def test_openapi_says_who_needs_a_key(document: dict[str, Any]) -> None:
    for route in DOCUMENTED:
        operation = document["paths"][route.path][route.method.lower()]
        assert ("security" in operation) is (route.scope is not None)
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/predict", schemas.PredictBody),
        ("/memorize", schemas.MemorizeBody),
        ("/v2/models/{name}/infer", InferBody),
    ],
)
def test_the_examples_fit_their_schema(
    document: dict[str, Any], path: str, model: type[BaseModel]
) -> None:
    content = document["paths"][path]["post"]["requestBody"]["content"]
    schema = content["application/json"]["schema"]
    assert schema["examples"]
    for example in schema["examples"]:
        model.model_validate(example)


def test_operation_ids_are_names(document: dict[str, Any]) -> None:
    ids = [
        operation["operationId"]
        for operations in document["paths"].values()
        for operation in operations.values()
    ]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("[a-z_][a-z0-9_]*", one) for one in ids)


def test_docs(digits_service: LocalService) -> None:
    answer = digits_service.get("/docs")
    assert answer.status_code == 200
    assert "/openapi.json" in answer.text


def test_answers_fit_their_schemas(
    digits_service: LocalService, diabetes_service: LocalService
) -> None:
    """Strictly: nothing missing, nothing that the schema does not know."""

    def fits(model: type[BaseModel], body: bytes) -> None:
        model.model_validate_json(body, strict=True)

    for service, width in ((digits_service, 64), (diabetes_service, 10)):
        row = [0.5] * width
        for options in ({}, {"neighbours": 3}, {"fields": ["base"]}):
            body = {"inputs": [row, row], **options}
            fits(schemas.PredictedBody, service.post("/predict", body).content)
        fits(schemas.ModelBody, service.get("/model").content)
        fits(schemas.MemoriesBody, service.get("/memories?source=fit&limit=2").content)
        fits(schemas.MemoryBody, service.get("/memories/fit-0").content)
        fits(schemas.ErrorBody, service.get("/memories/nobody").content)
        fits(schemas.ErrorBody, service.post("/predict", {}).content)
    fits(
        schemas.PredictedBody,
        digits_service.post("/predict", {"inputs": [[0.0] * 64], "top": 3}).content,
    )
    forgotten = digits_service.delete("/memories?source=nobody")
    fits(schemas.ForgottenBody, forgotten.content)
    for path in ("/healthz", "/readyz"):
        fits(schemas.HealthBody, digits_service.get(path).content)


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/predict", "/predict"),
        ("/memories", "/memories"),
        ("/memories/a", "/memories/{id}"),
        ("/memories/a/b", "/memories/{id}"),
        ("/memories/", "/memories/{id}"),
        ("/memories/{id}", "/memories/{id}"),
        ("/memoriesa", OTHER),
        ("/predict/", OTHER),
        ("/v2", "/v2"),
        ("/v2/", OTHER),
        ("/v2/health/ready", "/v2/health/ready"),
        ("/v2/models/a", "/v2/models/{name}"),
        ("/v2/models/a/infer", "/v2/models/{name}/infer"),
        ("/v2/models/a/ready", "/v2/models/{name}/ready"),
        ("/v2/models/infer/infer", "/v2/models/{name}/infer"),
        ("/v2/models/a/versions/3", "/v2/models/{name}/versions/{version}"),
        ("/v2/models/a/versions/3/infer", "/v2/models/{name}/versions/{version}/infer"),
        ("/v2/models/versions/versions/3/ready", "/v2/models/{name}/versions/{version}/ready"),
        ("/v2/models/", OTHER),
        ("/v2/models//infer", OTHER),
        ("/v2/models/a/b/infer", OTHER),
        ("/v2/models/a/infer/", OTHER),
        ("/", OTHER),
        ("", OTHER),
    ],
)
def test_templates(path: str, template: str) -> None:
    assert template_of(path) == template


def test_series_are_few_and_each_there_once() -> None:
    found = list(series())
    assert len(set(found)) == len(found) < 150
