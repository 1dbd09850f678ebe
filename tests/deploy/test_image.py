"""The cpu image, built and run as compose runs it: read-only, without rights, then killed."""

import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.engine import Client, docker, eventually, inspect, zero_rows

# Building may take 15 minutes of it.
pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]

IMAGE = "resmem-service:test"
HARDENED = [
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--tmpfs=/tmp:size=256m",
]


@pytest.fixture(scope="module")
def image() -> str:
    docker(
        "build", "--quiet", "--tag", IMAGE, ".", timeout=900, environment={"DOCKER_BUILDKIT": "1"}
    )
    return IMAGE


class Container:
    def __init__(self, image: str) -> None:
        self.name = f"resmem-test-{uuid.uuid4().hex[:8]}"
        volume = f"--volume={self.name}:/var/lib/resmem"
        port = "--publish=127.0.0.1::8080"
        docker("run", "--detach", "--name", self.name, *HARDENED, volume, port, image)

    def client(self) -> Client:
        """A client of the port that the container has now; it may change with each start."""
        address = docker("port", self.name, "8080/tcp").splitlines()[0]
        return Client(f"http://{address}")

    def health(self) -> str:
        return str(inspect(self.name)["State"]["Health"]["Status"])

    def log(self) -> str:
        return docker("logs", "--tail=40", self.name, check=False)

    def await_health(self) -> None:
        eventually(lambda: self.health() == "healthy", 90, lambda: self.health() + self.log())

    def remove(self) -> None:
        docker("rm", "--force", "--volumes", self.name, check=False)
        docker("volume", "rm", "--force", self.name, check=False)


@pytest.fixture(scope="module")
def container(image: str) -> Iterator[Container]:
    made = Container(image)
    try:
        made.await_health()
        yield made
    finally:
        made.remove()


def shell(image: str, command: str) -> str:
    return docker("run", "--rm", *HARDENED, "--entrypoint=sh", image, "-c", command)


def test_image_says_how_it_is_run(image: str) -> None:
    config = inspect(image)["Config"]
    assert config["User"] == "10001:10001"
    assert config["StopSignal"] == "SIGTERM"
    assert set(config["Volumes"]) == {"/var/lib/resmem"}
    assert set(config["ExposedPorts"]) == {"8080/tcp"}
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_image_has_no_compiler_and_no_installer(image: str) -> None:
    tools = "gcc g++ cc c++ clang cpp as ld make /opt/resmem/bin/pip"
    look = f"for tool in {tools}; do command -v $tool; done; id -u"
    assert shell(image, look) == "10001"


def test_hnswlib_needs_no_more_than_x86_64_v3(image: str, tmp_path: Path) -> None:
    """Built for the building machine it would use AVX-512 and die where there is none."""
    objdump = shutil.which("objdump")
    if objdump is None or shell(image, "uname -m") != "x86_64":
        pytest.skip("needs objdump and an x86-64 image")
    where = shell(image, "python -c 'import hnswlib; print(hnswlib.__file__)'")
    library = tmp_path / "hnswlib.so"
    created = docker("create", image)
    try:
        docker("cp", f"{created}:{where}", str(library))
    finally:
        docker("rm", created)
    code = subprocess.run(
        [objdump, "--disassemble", "--no-show-raw-insn", str(library)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    assert re.search(r"%ymm\d", code)
    assert not re.search(r"%zmm\d", code)


def test_answers_from_the_shipped_bundle(container: Container) -> None:
    client = container.client()
    status, model = client.call("GET", "/model")
    assert status == 200
    assert model["memory"]["size"] > 0
    status, answer = client.call("POST", "/predict", {"inputs": zero_rows(model, 3)})
    assert status == 200, answer
    assert len(answer["predictions"]) == 3
    for prediction in answer["predictions"]:
        assert sum(prediction["scores"]) == pytest.approx(1, abs=1e-4)


def test_memory_survives_a_kill(container: Container) -> None:
    client = container.client()
    _, model = client.call("GET", "/model")
    body = {
        "inputs": zero_rows(model, 1),
        "targets": [model["classes"][3]],
        "ids": ["before-the-kill"],
        "weights": [model["teaching_weight"]],
    }
    status, answer = client.call("POST", "/memorize", body)
    assert status == 201, answer
    size = answer["memory"]["size"]

    docker("kill", "--signal=KILL", container.name)
    docker("start", container.name)
    container.await_health()

    client = container.client()
    status, memory = client.call("GET", "/memories/before-the-kill")
    assert status == 200, memory
    question = {"inputs": zero_rows(model, 1), "neighbours": 1}
    _, answer = client.call("POST", "/predict", question)
    assert answer["memory"]["size"] == size
    assert answer["predictions"][0]["label"] == model["classes"][3]
    assert answer["predictions"][0]["neighbours"][0]["id"] == "before-the-kill"


def test_writes_nothing_outside_its_volume(container: Container) -> None:
    changed = docker("diff", container.name).splitlines()
    assert all(line.split()[1].startswith(("/var/lib/resmem", "/tmp")) for line in changed), changed


def test_stops_at_once_and_in_order(container: Container) -> None:
    docker("stop", "--time=35", container.name)
    assert inspect(container.name)["State"]["ExitCode"] in {0, 143}, container.log()
    assert "Traceback" not in container.log()
