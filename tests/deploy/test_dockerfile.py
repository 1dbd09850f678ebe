"""The Dockerfile, read as a file: what the final images inherit, line by line."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from resmem_service.settings import Settings


@pytest.fixture
def dockerfile(root: Path) -> str:
    return (root / "Dockerfile").read_text()


@pytest.fixture
def stages(dockerfile: str) -> dict[str, tuple[str, str]]:
    """Name of a stage -> what it is built from, and its instructions."""
    found = {}
    for part in re.split(r"^(?=FROM )", dockerfile, flags=re.MULTILINE)[1:]:
        head, _, body = part.partition("\n")
        match = re.fullmatch(r"FROM (\S+) AS (\S+)", head)
        assert match, head
        found[match[2]] = (match[1], body)
    return found


def lineage(stages: dict[str, tuple[str, str]], name: str) -> str:
    """The instructions of a stage and of those that it is built from."""
    text = ""
    while name in stages:
        name, body = stages[name]
        text = body + text
    return text


def test_builds_without_fetching_a_frontend(dockerfile: str) -> None:
    assert not re.search(r"^#\s*syntax\s*=", dockerfile, re.MULTILINE)


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_final_images(stages: dict[str, tuple[str, str]], target: str) -> None:
    text = lineage(stages, target)
    assert "apt-get" not in text
    assert not re.search(r"\bg(cc|\+\+)\b", text)
    assert "curl" not in text
    assert "HEALTHCHECK" in text
    assert "STOPSIGNAL SIGTERM" in text
    assert "USER 10001:10001" in text
    assert "VOLUME /var/lib/resmem" in text
    assert "COPY model_store" in text
    assert f"COPY --from={target}-environment /opt/resmem /opt/resmem" in text


def test_plain_build_makes_the_cpu_image(stages: dict[str, tuple[str, str]]) -> None:
    assert list(stages)[-1] == "cpu"


def test_hnswlib_is_built_for_every_machine(stages: dict[str, tuple[str, str]]) -> None:
    """By default it compiles itself for the building machine and dies elsewhere (SIGILL)."""
    text = lineage(stages, "dependencies")
    assert re.search(r'x86_64 \]; then export CXXFLAGS="?-march=x86-64-v3', text)
    assert re.search(r"HNSWLIB_NO_NATIVE=1 pip install .*hnswlib", text)
    assert "PIP_NO_CACHE_DIR=1" in text
    assert text.index("hnswlib>=") < text.index("COPY deploy/image/requirements.py")


def test_hnswlib_is_the_one_that_the_project_asks_for(root: Path, dockerfile: str) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    asked = next(line for line in project["dependencies"] if line.startswith("hnswlib"))
    assert f'"{asked}"' in dockerfile


def test_editing_the_source_rebuilds_no_dependency(stages: dict[str, tuple[str, str]]) -> None:
    assert "COPY service" not in lineage(stages, "dependencies")


def test_settings_that_are_set_exist(stages: dict[str, tuple[str, str]]) -> None:
    names = re.findall(r"RESMEM_([A-Z_]+)=", lineage(stages, "cpu"))
    assert {"HOST", "PORT", "STORE", "STATE_DIR"} <= set(names)
    assert {name.lower() for name in names} <= set(Settings.model_fields)


def test_context_is_an_allow_list_with_what_is_copied(root: Path, dockerfile: str) -> None:
    lines = [
        line
        for line in (root / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert lines[0] == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE)
        for source in line.split()
    }
    for source in copied:
        assert any(source == one or source.startswith(one + "/") for one in allowed), source
        assert (root / source).exists(), source


def test_requirements_are_those_of_the_project(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "deploy/image/requirements.py", "cpu"],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    expected = project["dependencies"] + project["optional-dependencies"]["cpu"]
    assert done.stdout.split("\n")[:-1] == expected
