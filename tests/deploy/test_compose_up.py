"""`docker compose up`: the service and Prometheus, and Grafana where its image can be had."""

import json
import subprocess
from collections.abc import Iterator
from functools import cache
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from tests.deploy.engine import ROOT, Client, docker, eventually, zero_rows

# Building may take 15 minutes of it.
pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]

PROJECT = "resmem-test"
ENVIRONMENT = {"RESMEM_PORT": "18080", "PROMETHEUS_PORT": "19090", "GRAFANA_PORT": "13000"}
SERVICE, PROMETHEUS, GRAFANA = (Client(f"http://127.0.0.1:{port}") for port in ENVIRONMENT.values())


@cache
def has_image(name: str) -> bool:
    """Whether the image of a service of compose.yaml is here or can be had."""
    image = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"][name]["image"]
    if docker("images", "--quiet", image):
        return True
    try:
        docker("pull", "--quiet", image, timeout=180)
    except (AssertionError, subprocess.TimeoutExpired):
        return False
    return True


def compose(*arguments: str, timeout: float = 300) -> str:
    return docker(
        "compose", "--project-name", PROJECT, *arguments, timeout=timeout, environment=ENVIRONMENT
    )


@pytest.fixture(scope="module")
def stack() -> Iterator[None]:
    names = ["resmem", *(name for name in ("prometheus", "grafana") if has_image(name))]
    try:
        compose("up", "--build", "--detach", "--wait", "--no-deps", *names, timeout=900)
        yield
    finally:
        compose("down", "--volumes", "--timeout", "5")


@pytest.fixture
def prometheus(stack: None) -> Client:  # noqa: ARG001
    if not has_image("prometheus"):
        pytest.skip("the image of Prometheus cannot be had here")
    return PROMETHEUS


def query(prometheus: Client, expression: str) -> list[Any]:
    status, answer = prometheus.call("GET", f"/api/v1/query?query={quote(expression)}")
    assert status == 200, (expression, answer)
    return list(answer["data"]["result"])


def test_files_are_valid() -> None:
    compose("config", "--quiet")
    files = ["--file", "compose.yaml", "--file", "deploy/compose.gpu.yaml"]
    merged = json.loads(
        docker("compose", *files, "config", "--format", "json", environment=ENVIRONMENT)
    )
    service = merged["services"]["resmem"]
    assert service["build"]["target"] == "gpu"
    assert service["read_only"] is True


@pytest.mark.usefixtures("stack")
def test_service_predicts_and_learns() -> None:
    _, model = SERVICE.call("GET", "/model")
    inputs = zero_rows(model, 1)
    assert SERVICE.call("POST", "/predict", {"inputs": inputs})[0] == 200
    taught = {"inputs": inputs, "targets": [model["classes"][0]]}
    assert SERVICE.call("POST", "/memorize", taught)[0] == 201


def test_prometheus_scrapes_the_service(prometheus: Client) -> None:
    eventually(
        lambda: bool(query(prometheus, "resmem_model_info and on (instance) up == 1")),
        60,
        lambda: str(prometheus.call("GET", "/api/v1/targets")),
    )


def test_prometheus_has_the_alerts_and_none_fires(prometheus: Client) -> None:
    _, answer = prometheus.call("GET", "/api/v1/rules")
    rules = [rule for group in answer["data"]["groups"] for rule in group["rules"]]
    content = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())
    assert len(rules) == sum(len(group["rules"]) for group in content["groups"])
    assert not [rule for rule in rules if rule["health"] == "err" or rule["state"] == "firing"]


def test_alerts_fire_when_they_should(prometheus: Client) -> None:
    assert prometheus
    image = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["prometheus"]["image"]
    docker(
        "run", "--rm", "--entrypoint=promtool",
        f"--volume={ROOT}/deploy/prometheus:/etc/prometheus:ro",
        f"--volume={ROOT}/tests/deploy:/tests:ro",
        image, "test", "rules", "/tests/alerts_test.yaml",
    )  # fmt: skip


def test_every_panel_shows_something_after_some_traffic(prometheus: Client) -> None:
    dashboard = json.loads((ROOT / "deploy/grafana/dashboards/resmem.json").read_text())
    variables = {"$__rate_interval": "1m", "$__range": "1h", "$instance": ".*", "$window": "15m"}
    waiting = []
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"]
            for name, value in variables.items():
                expression = expression.replace(name, value)
            assert "$" not in expression, panel["title"]
            waiting.append((panel["title"], expression))
    _, model = SERVICE.call("GET", "/model")

    def nothing_waits() -> bool:
        inputs = zero_rows(model, 2)
        SERVICE.call("POST", "/predict", {"inputs": inputs})
        wrong = {"inputs": inputs, "targets": model["classes"][1:3]}
        SERVICE.call("POST", "/memorize", wrong)
        waiting[:] = [each for each in waiting if not query(prometheus, each[1])]
        return not waiting

    eventually(nothing_waits, 60, lambda: str(waiting))


@pytest.mark.usefixtures("stack")
def test_grafana_shows_the_dashboard() -> None:
    if not has_image("grafana"):
        pytest.skip("the image of Grafana cannot be had here")
    status, answer = GRAFANA.call("GET", "/api/dashboards/uid/resmem")
    assert status == 200, answer
    assert answer["meta"]["provisioned"]


@pytest.mark.usefixtures("stack")
def test_only_this_machine_is_let_in() -> None:
    for name in ("resmem", "prometheus"):
        if name == "resmem" or has_image(name):
            ports = compose("ps", "--format", "{{.Publishers}}", name)
            assert "127.0.0.1" in ports
            assert "0.0.0.0" not in ports
