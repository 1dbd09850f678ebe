"""`resmem serve` from a folder whose files have the names of ours and of Python's own."""

import sys
from pathlib import Path

import pytest

from tests.conftest import FittedModel
from tests.end_to_end.server import Server
from tests.hostile_folder import fill_with_traps
from tests.server.everyone import ask, samples
from tests.server.test_supervisor import memorize, until

SEALED = 'resmem_memory_rows{tier="sealed"}'
COMMAND = Path(sys.executable).with_name("resmem")


@pytest.mark.skipif(not COMMAND.exists(), reason="the command resmem is not installed")
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_and_builders_run_our_code(
    digits: FittedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """Every worker died there; with one worker every seal failed, in the log alone."""
    folder = tmp_path / "folder"
    fill_with_traps(folder)
    monkeypatch.chdir(folder)
    flags = ["--growing-bytes", str(2**16)]
    with Server(
        digits.store, tmp_path / "state", flags, workers=workers, command=[str(COMMAND)]
    ) as server:
        before = samples(server)[SEALED]
        for number, row in enumerate(digits.inputs[:300].tolist()):
            memorize(server, row, 3, f"row-{number}")
        until(lambda: samples(server)[SEALED] > before, "sealed segment")
        assert ask(server, "GET", "/readyz").status_code == 200
        server.terminate()
        assert server.status() == 0
    assert not list(folder.glob("*.sprung"))
