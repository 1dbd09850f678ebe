import subprocess
from pathlib import Path

from resmem_service.memory.segments.lock import try_lock, wait_for_lock


def test_one_holds_the_lock_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "segments.lock"
    with try_lock(path) as first:
        assert first is not None
        with try_lock(path) as second:
            assert second is None
        with wait_for_lock(path, seconds=0.1) as third:
            assert third is None
    with wait_for_lock(path, seconds=0.1) as fourth:
        assert fourth is not None


def test_the_lock_is_one_although_its_file_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "segments.lock"
    with try_lock(path) as first:
        assert first is not None
        path.unlink()
        with try_lock(path) as second:
            assert second is None
    with try_lock(path) as third:
        assert third is not None


def test_a_child_shares_the_lock_although_its_file_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "segments.lock"
    with try_lock(path) as lease:
        assert lease is not None
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[lease])
    path.unlink()
    with child:
        with try_lock(path) as second:
            assert second is None
        assert child.stdin is not None
        child.stdin.close()
    with try_lock(path) as third:
        assert third is not None
