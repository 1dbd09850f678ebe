"""`/predict` against the contract, on a real classifier and a real regression."""

import asyncio
import math
from typing import Any

import numpy as np
import orjson
import pytest
from resmem_service.api.limits import RequestLimits
from resmem_service.api.model_metadata import ModelMetadata
from resmem_service.api.predict import PredictRequest
from resmem_service.errors import InvalidInput, TooManyRows
from resmem_service.inference.tensor_spec import TensorSpec

from tests.api.conftest import Start
from tests.api.local_service import LocalService
from tests.conftest import FittedModel

PARTS = ("label", "scores", "base", "correction")


def predict(service: LocalService, **body: Any) -> list[dict[str, Any]]:
    answer = service.post("/predict", body)
    assert answer.status_code == 200, answer.text
    predictions: list[dict[str, Any]] = answer.json()["predictions"]
    return predictions


def test_classification(digits_service: LocalService, digits: FittedModel) -> None:
    rows = digits.inputs[:20]
    answer = digits_service.post("/predict", {"inputs": rows.tolist()})
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body.keys() == {"model", "memory", "predictions"}
    assert body["model"] == {"name": "digits", "version": "1"}
    assert body["memory"] == {"size": 900, "revision": 0, "used": True}
    assert len(body["predictions"]) == 20
    for one in body["predictions"]:
        assert one.keys() == set(PARTS)
        assert len(one["scores"]) == len(one["correction"]) == len(one["base"]["scores"]) == 10
        assert math.isclose(sum(one["scores"]), 1, abs_tol=1e-5)
        assert np.allclose(
            np.add(one["base"]["scores"], one["correction"]), one["scores"], atol=1e-6
        )
        assert one["label"] == str(np.argmax(one["scores"]))
        assert one["base"]["label"] == str(np.argmax(one["base"]["scores"]))


def test_the_memory_helps(digits_service: LocalService, digits: FittedModel) -> None:
    truth = [str(target) for target in digits.targets.tolist()]
    reply = predict(digits_service, inputs=digits.inputs.tolist())
    right = sum(one["label"] == label for one, label in zip(reply, truth, strict=True))
    base = sum(one["base"]["label"] == label for one, label in zip(reply, truth, strict=True))
    assert right > base


def test_rows_do_not_depend_on_their_company(
    digits_service: LocalService, digits: FittedModel
) -> None:
    rows = digits.inputs[:5]
    together = predict(digits_service, inputs=rows.tolist())
    for row, expected in zip(rows.tolist(), together, strict=True):
        (alone,) = predict(digits_service, inputs=[row])
        assert alone["label"] == expected["label"]
        assert np.allclose(alone["scores"], expected["scores"], atol=1e-5)


def test_concurrent_requests_get_their_own_answers(
    digits_service: LocalService, digits: FittedModel
) -> None:
    rows = digits.inputs[:64]
    expected = [one["label"] for one in predict(digits_service, inputs=rows.tolist())]

    async def all_at_once() -> list[str]:
        posts = [
            digits_service.client.post("/predict", json={"inputs": [row]}) for row in rows.tolist()
        ]
        return [one.json()["predictions"][0]["label"] for one in await asyncio.gather(*posts)]

    assert digits_service.run(all_at_once()) == expected


def test_inputs_by_name(digits_service: LocalService, digits: FittedModel) -> None:
    rows = digits.inputs[:2].tolist()
    assert predict(digits_service, inputs={"pixels": rows}) == predict(digits_service, inputs=rows)


def test_integers_are_numbers(digits_service: LocalService) -> None:
    assert predict(digits_service, inputs=[[0] * 64]) == predict(
        digits_service, inputs=[[0.0] * 64]
    )


@pytest.mark.parametrize("fields", [[], ["label"], ["scores", "correction"], list(PARTS)])
def test_fields(digits_service: LocalService, digits: FittedModel, fields: list[str]) -> None:
    rows = digits.inputs[:2].tolist()
    whole = predict(digits_service, inputs=rows)
    some = predict(digits_service, inputs=rows, fields=fields)
    assert some == [{key: one[key] for key in fields} for one in whole]


@pytest.mark.parametrize("top", [1, 3, 10, 99])
def test_top(digits_service: LocalService, digits: FittedModel, top: int) -> None:
    (whole,) = predict(digits_service, inputs=digits.inputs[:1].tolist())
    (best,) = predict(digits_service, inputs=digits.inputs[:1].tolist(), top=top)
    assert best.keys() == {"label", "top"}
    assert best["label"] == best["top"][0]["label"] == whole["label"]
    order = np.argsort(-np.array(whole["scores"]), kind="stable")[:top]
    assert best["top"] == [
        {
            "label": str(index),
            "score": whole["scores"][index],
            "base": whole["base"]["scores"][index],
            "correction": whole["correction"][index],
        }
        for index in order.tolist()
    ]


def test_top_with_fields(digits_service: LocalService, digits: FittedModel) -> None:
    (best,) = predict(digits_service, inputs=digits.inputs[:1].tolist(), top=2, fields=["scores"])
    assert best.keys() == {"top"}
    assert [one.keys() for one in best["top"]] == [{"label", "score"}] * 2


@pytest.mark.parametrize("count", [0, 1, 5, 100])
def test_neighbours(digits_service: LocalService, digits: FittedModel, count: int) -> None:
    (one,) = predict(digits_service, inputs=digits.inputs[:1].tolist(), neighbours=count)
    if count == 0:
        assert "neighbours" not in one
        return
    k = digits.bundle.manifest.parameters.k
    found = one["neighbours"]
    assert len(found) == min(count, k)
    assert [near["distance"] for near in found] == sorted(near["distance"] for near in found)
    for near in found:
        assert near.keys() == {"id", "distance", "weight", "target", "source"}
        assert near["source"] == "fit"
        assert digits_service.get(f"/memories/{near['id']}").json()["target"] == near["target"]
    if count >= k:
        assert math.isclose(sum(near["weight"] for near in found), 1, rel_tol=1e-6)


def test_a_row_of_the_bundle_is_its_own_neighbour(
    digits_service: LocalService, digits: FittedModel
) -> None:
    first = np.load(digits.store.parent / "train.npz")["x"][:1]
    (one,) = predict(digits_service, inputs=first.tolist(), neighbours=1)
    assert one["neighbours"][0]["distance"] < 1e-3


def test_regression(diabetes_service: LocalService, diabetes: FittedModel) -> None:
    reply = predict(diabetes_service, inputs=diabetes.inputs[:10].tolist(), neighbours=1)
    for one in reply:
        assert one.keys() == {"value", "base", "correction", "neighbours"}
        assert math.isclose(one["base"] + one["correction"], one["value"], abs_tol=1e-5)
        assert isinstance(one["neighbours"][0]["target"], float)


def test_regression_fields(diabetes_service: LocalService, diabetes: FittedModel) -> None:
    rows = diabetes.inputs[:1].tolist()
    (one,) = predict(diabetes_service, inputs=rows, fields=["value"])
    assert one.keys() == {"value"}
    assert (
        diabetes_service.post("/predict", {"inputs": rows, "fields": ["scores"]}).json()["error"][
            "field"
        ]
        == "fields"
    )
    assert (
        diabetes_service.post("/predict", {"inputs": rows, "top": 1}).json()["error"]["field"]
        == "top"
    )


def test_a_row_too_many(digits: FittedModel, start: Start) -> None:
    service = start(digits, max_request_rows=2)
    assert service.post("/predict", {"inputs": digits.inputs[:2].tolist()}).status_code == 200
    answer = service.post("/predict", {"inputs": {"pixels": digits.inputs[:3].tolist()}})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_many_rows"


def metadata(**changes: Any) -> ModelMetadata:
    facts: dict[str, Any] = {
        "name": "two",
        "version": "1",
        "task": "classification",
        "inputs": (TensorSpec("image", "float32", (2,)), TensorSpec("age", "int64", ())),
        "classes": None,
        "outputs": 3,
        "provider": "cpu",
        "embedding": {},
        "parameters": {},
        "teaching_weight": 1.0,
        "max_weight": 4.0,
        "scores": [],
        "checksums": {},
        "memory_limits": {},
    }
    return ModelMetadata(**{**facts, **changes})


def test_several_inputs() -> None:
    body = b'{"inputs": {"age": [7, 8], "image": [[1, 2], [3, 4]]}}'
    rows = PredictRequest.decode(body, metadata(), RequestLimits()).rows
    assert list(rows.arrays) == ["image", "age"]
    assert rows.arrays["age"].tolist() == [7, 8]
    assert rows.arrays["image"].dtype == np.float32


@pytest.mark.parametrize(
    ("inputs", "field"),
    [
        ([[1, 2]], "inputs"),
        ({"image": [[1, 2]]}, "inputs.age"),
        ({"image": [[1, 2]], "age": [7], "other": [1]}, "inputs.other"),
        ({"image": [[1, 2]], "age": [7, 8]}, "inputs.age"),
        ({"image": [[1, 2]], "age": [7.5]}, "inputs.age"),
    ],
)
def test_several_inputs_that_do_not_fit(inputs: object, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        PredictRequest.decode(orjson.dumps({"inputs": inputs}), metadata(), RequestLimits())
    assert caught.value.field == field


def test_rows_are_counted_in_every_input() -> None:
    body = b'{"inputs": {"image": [[1, 2]], "age": [7, 8]}}'
    with pytest.raises(TooManyRows):
        PredictRequest.decode(body, metadata(), RequestLimits(max_request_rows=1))


def test_classes_without_names_are_called_by_their_index() -> None:
    assert metadata().labels == ["0", "1", "2"]
