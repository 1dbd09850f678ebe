"""The promise: correct it once, and it is right from the next request on, whatever happens."""

from pathlib import Path
from typing import Any

from tests.conftest import FittedModel
from tests.end_to_end.server import Server


def a_wrong_row(server: Server, model: FittedModel) -> tuple[list[float], str]:
    """A held-out row that the server labels wrongly, and its true label."""
    answer = server.client.post(
        "/predict", json={"inputs": model.inputs.tolist(), "fields": ["label"]}
    )
    labels = [one["label"] for one in answer.json()["predictions"]]
    for row, target, label in zip(model.inputs, model.targets.tolist(), labels, strict=True):
        if label != str(target):
            return row.tolist(), str(target)
    raise AssertionError("the model is never wrong")


def teach(server: Server, row: list[float], label: str, **more: Any) -> None:
    weight = server.client.get("/model").json()["teaching_weight"]
    body = {"inputs": [row], "targets": [label], "weights": [weight], **more}
    answer = server.client.post("/memorize", json=body)
    assert answer.status_code == 201, answer.text


def knows(server: Server, row: list[float], label: str) -> None:
    """It is right, and the new memory is its first neighbour."""
    reply = server.predict(row, neighbours=3)
    assert reply["label"] == label
    assert reply["neighbours"][0]["id"] == "correction-1"
    assert reply["neighbours"][0]["target"] == label
    assert reply["neighbours"][0]["source"] == "a-person"


def test_taught_live_and_killed_in_between(digits: FittedModel, tmp_path: Path) -> None:
    with Server(digits.store, tmp_path) as server:
        row, label = a_wrong_row(server, digits)
        teach(server, row, label, ids=["correction-1"], source="a-person")
        knows(server, row, label)
        server.kill()
    with Server(digits.store, tmp_path) as server:
        knows(server, row, label)
        assert server.client.get("/model").json()["memory"]["size"] == 901
        forgotten = server.client.delete("/memories", params={"source": "a-person"})
        assert forgotten.json()["forgotten"] == 1
        server.kill()
    with Server(digits.store, tmp_path) as server:
        assert server.predict(row, neighbours=1)["neighbours"][0]["id"] != "correction-1"
        assert server.client.get("/memories/correction-1").status_code == 404


def test_killed_at_the_moment_of_the_reply(digits: FittedModel, tmp_path: Path) -> None:
    """Whatever was acknowledged before the kill is there after it, in order, all of it."""
    acknowledged: list[str] = []
    rows, targets = digits.inputs.tolist(), digits.targets.tolist()
    for life in range(2):
        with Server(digits.store, tmp_path) as server:
            for number in range(20):
                at, name = 20 * life + number, f"{life}-{number}"
                body = {"inputs": [rows[at]], "targets": [targets[at]], "ids": [name]}
                assert server.client.post("/memorize", json=body).status_code == 201
                acknowledged.append(name)
            server.kill()
    with Server(digits.store, tmp_path) as server:
        kept = server.client.get("/memories").json()["memories"]
        assert [one["id"] for one in kept] == acknowledged


def test_regression_taught_live(diabetes: FittedModel, tmp_path: Path) -> None:
    row, target = diabetes.inputs[0].tolist(), float(diabetes.targets[0, 0])
    with Server(diabetes.store, tmp_path, environment={"RESMEM_MAX_WEIGHT": "1e6"}) as server:
        before = abs(server.predict(row)["value"] - target)
        body = {"inputs": [row], "targets": [target], "weights": [1e6]}
        assert server.client.post("/memorize", json=body).status_code == 201
        assert abs(server.predict(row)["value"] - target) < min(before, 0.01)
