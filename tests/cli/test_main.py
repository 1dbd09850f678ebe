"""The dispatcher: which commands there are, and how errors look."""

import subprocess
import sys

import pytest
from resmem_service import __version__
from resmem_service.cli import main


def test_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """The public surface: a change to it is a change to this list."""
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    listed = [
        line.split()[0]
        for line in text.partition("commands:")[2].splitlines()
        if line.startswith("    ") and not line.startswith("     ")
    ]
    assert [name for name in listed if name != "COMMAND"] == [
        "fit", "serve", "eval", "bench", "rebase", "use", "inspect", "verify", "repair", "compact",
        "backup", "restore", "export", "import",
    ]  # fmt: skip


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"resmem {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["unknown"], ["serve", "--unknown"], ["fit"]])
def test_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: resmem" in capsys.readouterr().err


def test_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "resmem_service", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"resmem {__version__}\n"


def test_the_commands_that_serve_need_no_extra() -> None:
    """What only `fit` needs is imported by `fit` alone."""
    code = (
        "import sys, resmem_service.cli; "
        "extra = {'onnx', 'pyarrow', 'tqdm', 'sklearn', 'matplotlib', 'psutil'}; "
        "found = extra & set(sys.modules); "
        "sys.exit(str(found) if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
