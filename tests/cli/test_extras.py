"""An installation without extras: whatever needs none works, the rest names what brings it."""

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from resmem_service.cli import _COMMANDS

from tests.conftest import FittedModel
from tests.maintenance.examples import teach

HIDDEN = ("onnxruntime", "onnx", "pyarrow", "tqdm", "matplotlib", "psutil")

HIDE = f"""
import sys
class Hidden:
    def find_spec(name, path=None, target=None):
        if name.partition('.')[0] in {HIDDEN}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)
sys.meta_path.insert(0, Hidden)
from resmem_service.cli import main
sys.exit(main())
"""


def bare(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """`resmem` as it is installed without any extra."""
    return subprocess.run(
        [sys.executable, "-c", HIDE, *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("command", [None, *_COMMANDS])
def test_help_needs_no_extra(command: str | None) -> None:
    done = bare(*([] if command is None else [command]), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: resmem {command or '[-h]'}")


def test_looking_after_a_state_needs_no_extra(digits: FittedModel, tmp_path: Path) -> None:
    taught = teach(digits, tmp_path / "states")
    store = Path(shutil.copytree(digits.store, tmp_path / "store"))
    place = ["--store", str(store), "--state-dir", str(tmp_path / "states")]
    lines = str(tmp_path / "out.jsonl")
    for command in (
        ["inspect"],
        ["verify"],
        ["repair"],
        ["compact"],
        ["export", "--to", lines, "--vectors"],
        ["import", lines],
        ["backup", "--to", str(tmp_path / "saved")],
        ["restore", "--from", str(tmp_path / "saved"), "--force"],
    ):
        done = bare(*command, *place)
        assert done.returncode == 0, command
        # The teaching has forgotten one memory of the bundle, which a file cannot hold.
        told = (
            "forgotten memories of the bundle, which the file does not hold: 1 (fit-3)"
            if command[0] == "export"
            else ""
        )
        assert done.stderr.startswith(told), command
        assert bool(done.stderr) == bool(told), command
    assert taught.folders.journal.exists()
    assert bare("use", "digits/1", "--store", str(store)).returncode == 0


def test_what_needs_an_extra_names_it_in_one_line(digits: FittedModel, tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", x=digits.inputs[:20], y=digits.targets[:20])
    entry = {"inputs": digits.inputs[0].astype(float).tolist(), "target": 1}
    (tmp_path / "in.jsonl").write_text(json.dumps(entry) + "\n")
    (tmp_path / "in.parquet").write_text("")
    store = ["--store", str(digits.store)]
    state = ["--state-dir", str(tmp_path / "states")]
    rows, runtime = str(tmp_path / "rows.npz"), ["'resmem-service[cpu]'", "'resmem-service[gpu]'"]
    cases = {
        ("serve", *store, *state): runtime,
        ("serve", *store, *state, "--workers", "2"): runtime,
        ("eval", *store, "--data", rows): runtime,
        ("import", *store, *state, str(tmp_path / "in.jsonl")): runtime,
        ("import", *store, *state, str(tmp_path / "in.parquet")): ["'resmem-service[fit]'"],
        ("fit", *store, "--model", "base.onnx", "--data", rows, "--name", "x"): [
            "'resmem-service[fit]'"
        ],
        ("bench",): ["'resmem-service[bench]'"],
    }
    for command, extras in cases.items():
        done = bare(*command)
        assert done.returncode == 2, command
        (line,) = done.stderr.splitlines()
        assert line.startswith("resmem: error: ")
        assert all(f"pip install {extra}" in line for extra in extras), line


def test_the_list_of_commands_is_written_without_importing_them() -> None:
    """What costs CPU time at each `resmem --help`: pydantic, numpy, the commands themselves."""
    code = (
        "import sys\nfrom resmem_service.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'pydantic', 'numpy', 'orjson', 'asyncio', 'resmem_service.settings'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_costs_a_few_times_what_python_itself_does() -> None:
    def seconds(*arguments: str) -> float:
        spent = []
        for _ in range(3):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return min(spent)

    assert seconds("-m", "resmem_service", "--help") < 6 * seconds(
        "-c", "import argparse, json, re"
    )
