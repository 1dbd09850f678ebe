"""Prometheus' configuration and alerts, read as files; test_compose_up.py loads them for real."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.exposition import complaints, exported


@pytest.fixture
def alerts(root: Path) -> list[dict[str, Any]]:
    content = yaml.safe_load((root / "deploy/prometheus/alerts.yaml").read_text())
    return [rule for group in content["groups"] for rule in group["rules"]]


def test_alerts_ask_only_for_what_is_exported(alerts: list[dict[str, Any]]) -> None:
    samples = exported()
    found = {rule["alert"]: complaints(rule["expr"], samples) for rule in alerts}
    assert not {name: wrong for name, wrong in found.items() if wrong}


def test_alerts_tell_what_to_do(alerts: list[dict[str, Any]]) -> None:
    assert len(alerts) == len({rule["alert"] for rule in alerts})
    for rule in alerts:
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["for"]
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]


def test_every_alert_is_fired_by_a_test(root: Path, alerts: list[dict[str, Any]]) -> None:
    cases = yaml.safe_load((root / "tests/deploy/alerts_test.yaml").read_text())
    fired = {
        re.findall(r'alertname="(\w+)"', sample["labels"])[0]
        for case in cases["tests"]
        for check in case["promql_expr_test"]
        for sample in check["exp_samples"]
    }
    assert fired == {rule["alert"] for rule in alerts}


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (package prometheus)"
)
def test_alerts_fire_when_they_should(root: Path, tmp_path: Path) -> None:
    cases = yaml.safe_load((root / "tests/deploy/alerts_test.yaml").read_text())
    cases["rule_files"] = [str(root / "deploy/prometheus/alerts.yaml")]
    (tmp_path / "alerts_test.yaml").write_text(yaml.safe_dump(cases))
    ended = subprocess.run(
        ["promtool", "test", "rules", str(tmp_path / "alerts_test.yaml")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_scrapes_the_service_of_compose_and_loads_the_alerts(root: Path) -> None:
    config = yaml.safe_load((root / "deploy/prometheus/prometheus.yaml").read_text())
    jobs = {
        job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]
    }
    assert jobs["resmem"] == ["resmem:8080"]
    compose = yaml.safe_load((root / "compose.yaml").read_text())
    assert "resmem" in compose["services"]
    assert config["rule_files"] == ["/etc/prometheus/alerts.yaml"]
    assert "./deploy/prometheus:/etc/prometheus:ro" in compose["services"]["prometheus"]["volumes"]
