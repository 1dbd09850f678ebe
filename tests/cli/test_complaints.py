"""What goes wrong in a command is one line, in the form of the log, and an exit status."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from resmem_service.cli.complaints import described, likely_log_format

from tests.conftest import FittedModel
from tests.maintenance.examples import teach

RESMEM = [sys.executable, "-m", "resmem_service"]


def resmem(
    *arguments: str, environment: dict[str, str] | None = None, folder: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """A command as typed, which is expected to fail."""
    return subprocess.run(
        [*RESMEM, *arguments],
        env=os.environ | (environment or {}),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RESMEM_LOG_FORMAT", "RESMEM_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("words", "environment", "expected"),
    [
        ([], {}, "text"),
        (["serve", "--log-format", "json"], {}, "json"),
        (["serve", "--log-format=json"], {}, "json"),
        (["serve", "--log-format=json", "--log-format", "text"], {}, "text"),
        (["serve", "--log-format"], {}, "text"),
        (["serve"], {"RESMEM_LOG_FORMAT": "json"}, "json"),
        (["serve"], {"resmem_log_format": "json"}, "json"),
        (["serve", "--log-format", "text"], {"RESMEM_LOG_FORMAT": "json"}, "text"),
        (["serve", "--config", "json.toml"], {}, "json"),
        (["serve", "--config", "json.toml"], {"RESMEM_LOG_FORMAT": "text"}, "text"),
        (["serve"], {"RESMEM_CONFIG": "json.toml"}, "json"),
        (["serve", "--config", "other.toml"], {"RESMEM_CONFIG": "json.toml"}, "text"),
        (["serve", "--config", "nowhere.toml"], {}, "text"),
        (["serve", "--config", "rubbish.toml"], {}, "text"),
        (["serve", "--config", "."], {}, "text"),
        (["serve", "--log-format", "yaml"], {}, "text"),
    ],
)
def test_the_form_is_known_before_the_settings_are(
    words: list[str],
    environment: dict[str, str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json.toml").write_text('log_format = "json"\n')
    (tmp_path / "other.toml").write_text("port = 1\n")
    (tmp_path / "rubbish.toml").write_bytes(b"\xff = ")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert likely_log_format(words) == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--unknown"], "arguments are required: COMMAND"),
        (["brew"], "invalid choice: 'brew'"),
        (["serve", "--unknown"], "unrecognized arguments: --unknown"),
        (["serve", "--port", "many"], "--port: "),
        (["serve", "--config", "no\nwhere.toml"], "cannot be read"),
        (["serve", "--store", "no\nwhere"], "no\nwhere"),
        (["verify", "--store", "nowhere"], "nowhere"),
        (["fit"], "arguments are required"),
    ],
)
def test_errors_are_objects_where_the_log_is(
    arguments: list[str], words: str, tmp_path: Path
) -> None:
    done = resmem(*arguments, environment={"RESMEM_LOG_FORMAT": "json"}, folder=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    found = json.loads(line)
    assert found["level"] == "error"
    assert words in found["message"]
    done = resmem(*arguments, folder=tmp_path)
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1]
    assert words.replace("\n", "\\n") in line
    assert line.startswith("resmem")


def test_warnings_of_settings_are_objects_where_the_log_is(tmp_path: Path) -> None:
    environment = {
        "RESMEM_LOG_FORMAT": "json",
        "RESMEM_PORT": "tcp://10.0.0.1:8080",
        "RESMEM_WROKERS": "2",
    }
    done = resmem("serve", environment=environment, folder=tmp_path)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["level"] for line in lines] == ["warning", "warning", "error"]


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_fault_of_ours_is_a_traceback_in_the_form_of_the_log(form: str) -> None:
    code = (
        "import sys\nimport resmem_service.cli.use\n"
        "resmem_service.cli.use.run = lambda *_: 1 / 0\n"
        "from resmem_service.cli import main\nsys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "use", "x/1", "--log-format", form],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    if form == "json":
        (line,) = done.stderr.splitlines()
        assert "ZeroDivisionError" in json.loads(line)["exception"]
    else:
        first, *rest = done.stderr.splitlines()
        assert "critical the process ends with an exception" in first
        assert rest[-1] == "    ZeroDivisionError: division by zero"


def test_what_the_operating_system_refused() -> None:
    assert described(PermissionError(13, "Permission denied", "a")) == "a: Permission denied"
    assert described(OSError(18, "Cross-device", b"a\xff", None, b"b")) == (
        "a\udcff -> b: Cross-device"
    )
    assert described(OSError("short")) == "short"
    assert described(TimeoutError()) == "TimeoutError"


def test_a_file_in_the_place_of_a_folder(digits: FittedModel, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for arguments in (
        ["inspect", "--store", str(file)],
        ["verify", "--store", str(digits.store), "--state-dir", str(file)],
        ["import", "--store", str(digits.store), "--state-dir", str(file), "in.jsonl"],
        ["serve", "--config", str(tmp_path)],
    ):
        done = resmem(*arguments, folder=tmp_path)
        assert done.returncode == 2, arguments
        (line,) = done.stderr.splitlines()
        assert line.startswith("resmem: error: ")
        assert str(tmp_path) in line


def test_output_that_cannot_be_written(digits: FittedModel, tmp_path: Path) -> None:
    taught = teach(digits, tmp_path / "states")
    for arguments in (["inspect", *taught.options()], ["--help"], ["--version"]):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [*RESMEM, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False
            )
        assert done.returncode == 2, arguments
        assert done.stderr == "resmem: error: No space left on device\n"


def test_a_reader_that_has_seen_enough(digits: FittedModel, tmp_path: Path) -> None:
    taught = teach(digits, tmp_path / "states")
    for arguments in (["inspect", *taught.options()], ["--help"]):
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [*RESMEM, *arguments], stdout=writing, stderr=subprocess.PIPE, text=True, check=False
        )
        os.close(writing)
        assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, ""), arguments


def test_without_standard_streams(digits: FittedModel, tmp_path: Path) -> None:
    taught = teach(digits, tmp_path / "states")
    closed = 'exec "$@" >&- 2>&-'
    for arguments, status in (
        (["inspect", *taught.options()], 0),
        (["inspect", "--store", "x"], 2),
    ):
        done = subprocess.run(["sh", "-c", closed, "sh", *RESMEM, *arguments], check=False)
        assert done.returncode == status, arguments


def test_a_file_name_that_is_no_text(digits: FittedModel, tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/st\xe4te\n"
    os.mkdir(folder)  # noqa: PTH102 - bytes
    arguments = ["inspect", "--store", str(digits.store), "--state-dir", os.fsdecode(folder)]
    done = resmem(*arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "st\\udce4te\\n" in line
    done = resmem(*arguments, "--log-format", "json")
    assert "st\\udce4te\n" in json.loads(done.stderr)["message"]
