"""compose.yaml, read as a file: what each service may do."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from resmem_service.server.http_stop import STOP_GRACE_S
from resmem_service.settings import Settings


@pytest.fixture
def compose(root: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((root / "compose.yaml").read_text())
    return loaded


@pytest.mark.parametrize("name", ["resmem", "prometheus", "grafana"])
def test_services_are_hardened(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert not service.get("privileged")
    assert all(port.startswith("${BIND:-127.0.0.1}:") for port in service["ports"])


def test_what_must_last_lies_in_named_volumes(compose: dict[str, Any]) -> None:
    volumes = set(compose["volumes"])
    for name in compose["services"]:
        mounts = [mount.split(":") for mount in compose["services"][name]["volumes"]]
        assert all(mount[0] in volumes or mount[-1] == "ro" for mount in mounts), name
    assert "state:/var/lib/resmem" in compose["services"]["resmem"]["volumes"]


def test_images_are_pinned(compose: dict[str, Any]) -> None:
    for name in ("prometheus", "grafana"):
        tag = compose["services"][name]["image"].split(":")[1]
        assert tag.lstrip("v").split(".")[0].isdigit()


def test_settings_that_are_passed_on_exist(compose: dict[str, Any]) -> None:
    for name in compose["services"]["resmem"]["environment"]:
        assert name.removeprefix("RESMEM_").lower() in Settings.model_fields


def test_stopping_leaves_time_to_drain(compose: dict[str, Any], root: Path) -> None:
    """Docker kills what has not ended by then."""
    image = (root / "Dockerfile").read_text()
    (delay,) = re.findall(r"RESMEM_SHUTDOWN_DELAY_S=(\d+)", image)
    assert "RESMEM_DRAIN_S=" not in image
    assert float(delay) > 0
    needed = float(delay) + Settings.model_fields["drain_s"].default + STOP_GRACE_S
    seconds = int(compose["services"]["resmem"]["stop_grace_period"].removesuffix("s"))
    assert needed < seconds
    told = (root / "deploy/README.md").read_text()
    for advice in ("docker stop --time ", "terminationGracePeriodSeconds: "):
        assert re.findall(rf"{advice}(\d+)", told) == [str(seconds)]


def test_gpu_file_changes_only_the_service(root: Path) -> None:
    gpu = yaml.safe_load((root / "deploy/compose.gpu.yaml").read_text())
    assert set(gpu["services"]) == {"resmem"}
    assert gpu["services"]["resmem"]["build"] == {"target": "gpu"}
