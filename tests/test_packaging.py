"""The distribution: what it contains, what it asks for, what importing it does."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import resmem_service

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    loaded: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return loaded


def python(code: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_runtime_sends_nothing_home_unless_the_user_says_so() -> None:
    ask = (
        "import os, resmem_service.inference.base_model; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    assert python(ask).stdout.strip() == "1"
    assert python(ask, ORT_DISABLE_TELEMETRY="0").stdout.strip() == "0"


def test_the_package_itself_changes_nothing_and_needs_nothing() -> None:
    ask = (
        "import os, sys; before = dict(os.environ), set(sys.modules); import resmem_service; "
        "assert dict(os.environ) == before[0]; "
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before[1]})"
    )
    assert python(ask).stdout.split() == ["resmem_service"]


def test_extras(project: dict[str, Any]) -> None:
    extras = project["optional-dependencies"]
    assert {"cpu", "gpu", "train", "bench", "dev"} <= set(extras)
    assert [line.split(">=")[0] for line in extras["cpu"]] == ["onnxruntime"]
    assert [line.split(">=")[0] for line in extras["gpu"]] == ["onnxruntime-gpu"]
    for name in ("train", "bench", "dev"):
        assert any("cpu" in line for line in extras[name] if "resmem-service" in line), name


def test_serving_brings_no_tools_of_the_developer(project: dict[str, Any]) -> None:
    serving = project["dependencies"] + project["optional-dependencies"]["cpu"]
    names = {re.split(r"[\[<>=]", line)[0] for line in serving}
    assert not names & {"pytest", "ruff", "mypy", "hypothesis", "scikit-learn", "torch", "onnx"}


def test_python_versions(project: dict[str, Any]) -> None:
    assert project["requires-python"] == ">=3.11"
    assert project["license"] == "Apache-2.0"


def test_version_stands_in_one_piece(project: dict[str, Any]) -> None:
    assert resmem_service.__version__ == project["version"]
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    released = [heading for heading in headings if heading != "Unreleased"]
    assert not released or released[0] == project["version"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Names of the files in a wheel built from this checkout, without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    build = (
        "import sys\n"
        "from setuptools.build_meta import build_wheel\n"
        "build_wheel(sys.argv[1], {'--build-option': ['--quiet']})\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", build, str(folder)],
        cwd=_copy_of_the_source(folder / "source"),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        return archive.namelist()


def _copy_of_the_source(folder: Path) -> Path:
    """Only what the image is built from too, so that a file missing there is missing here."""
    names = ["pyproject.toml", "setup.py", "README.md", "LICENSE"]
    sources = [ROOT / name for name in names]
    sources += [
        file
        for file in (ROOT / "service").rglob("*")
        if file.is_file() and file.suffix not in {".pyc", ".so"}
    ]
    for source in sources:
        target = folder / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    return folder


@pytest.mark.timeout(400)
def test_wheel_has_the_kernel_the_types_and_every_module(wheel: list[str]) -> None:
    assert "resmem_service/py.typed" in wheel
    for module in ("memory/search/_kernel", "inference/_nested_lists", "api/_json_scan"):
        assert f"resmem_service/{module}.pyi" in wheel
        assert [name for name in wheel if re.fullmatch(rf"resmem_service/{module}\..+\.so", name)]
    source = ROOT / "service"
    modules = {file.relative_to(source).as_posix() for file in source.rglob("*.py")}
    assert modules <= set(wheel)


@pytest.mark.timeout(400)
def test_wheel_has_nothing_else(wheel: list[str]) -> None:
    tops = {name.split("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"resmem_service"}
    assert not [name for name in wheel if name.endswith((".onnx", ".npy", ".hnsw"))]
