from pathlib import Path

from resmem_service.memory.segments.lock import try_lock, wait_for_lock


def test_one_holds_the_lock_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with try_lock(path) as first:
        assert first is not None
        with try_lock(path) as second:
            assert second is None
        with wait_for_lock(path, seconds=0.1) as third:
            assert third is None
    with wait_for_lock(path, seconds=0.1) as fourth:
        assert fourth is not None
