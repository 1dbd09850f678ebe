import os
import resource
import shutil
import subprocess
from pathlib import Path

from resmem_service.telemetry.processes import collect_processes


def faults(*pids: int) -> dict[str, float]:
    """Major page faults by worker."""
    (family,) = [
        family for family in collect_processes(pids) if family.name == "resmem_major_page_faults"
    ]
    return {sample.labels["worker"]: sample.value for sample in family.samples}


def test_page_faults_of_this_process() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
    found = faults(0, os.getpid())
    after = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
    assert list(found) == ["1"]
    assert before <= found["1"] <= after


def test_page_faults_of_another_process_whatever_it_is_called(tmp_path: Path) -> None:
    program = shutil.copy(shutil.which("sleep") or "/bin/sleep", tmp_path / "x) 7 (y")
    with subprocess.Popen([program, "60"]) as process:
        found = faults(process.pid)
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        process.kill()
    assert found == {"0": int(fields[9])}
    assert faults(process.pid) == {}
