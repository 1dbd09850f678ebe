"""The dashboard and its provisioning, read as files."""

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.exposition import complaints, exported


@pytest.fixture
def dashboard(root: Path) -> dict[str, Any]:
    text = (root / "deploy/grafana/dashboards/resmem.json").read_text()
    loaded: dict[str, Any] = json.loads(text)
    return loaded


@pytest.fixture
def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def test_panels_ask_only_for_what_is_exported(panels: list[dict[str, Any]]) -> None:
    samples = exported()
    found = {
        panel["title"]: [
            wrong for target in panel["targets"] for wrong in complaints(target["expr"], samples)
        ]
        for panel in panels
    }
    assert not {title: wrong for title, wrong in found.items() if wrong}


def test_every_metric_of_the_service_has_a_place(dashboard: dict[str, Any]) -> None:
    """A metric that nobody can see is not worth its cost; process metrics are for the curious."""
    text = json.dumps(dashboard)
    families = {
        name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum")
        for name in exported()
        if name.startswith("resmem_")
    }
    assert not {name for name in families if name not in text}


def test_panels_explain_themselves(panels: list[dict[str, Any]]) -> None:
    titles = [panel["title"] for panel in panels]
    assert len(titles) == len(set(titles))
    for panel in panels:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


def test_panels_do_not_overlap(dashboard: dict[str, Any]) -> None:
    boxes = [panel["gridPos"] for panel in dashboard["panels"]]
    for a, b in combinations(boxes, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or above, (a, b)
    assert all(box["x"] + box["w"] <= 24 for box in boxes)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(boxes)


def test_rows_are_the_four_questions(dashboard: dict[str, Any]) -> None:
    rows = [panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"]
    assert rows == ["At a glance", "Requests", "Inference", "Memory", "Learning"]


def test_provisioning_finds_the_dashboard_and_its_data(
    root: Path, dashboard: dict[str, Any], panels: list[dict[str, Any]]
) -> None:
    grafana = root / "deploy/grafana/provisioning"
    sources = yaml.safe_load((grafana / "datasources/prometheus.yaml").read_text())["datasources"]
    assert {panel["datasource"]["uid"] for panel in panels} == {source["uid"] for source in sources}
    provider = yaml.safe_load((grafana / "dashboards/resmem.yaml").read_text())["providers"][0]
    compose = yaml.safe_load((root / "compose.yaml").read_text())["services"]["grafana"]
    folder = provider["options"]["path"]
    assert f"./deploy/grafana/dashboards:{folder}:ro" in compose["volumes"]
    home = compose["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{folder}/resmem.json"
    assert dashboard["uid"] == "resmem"
