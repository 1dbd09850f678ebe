import hashlib
from pathlib import Path

import pytest
from resmem_service import durable


def test_sha256_is_that_of_the_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content" * 1000)
    assert durable.sha256_of(path) == hashlib.sha256(b"content" * 1000).hexdigest()


def test_a_replacement_is_whole_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "current"
    durable.write_atomically(path, b"1")

    def refuse(_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", refuse)
        with pytest.raises(OSError, match="disk full"):
            durable.write_atomically(path, b"2")
    assert path.read_bytes() == b"1"
    durable.write_atomically(path, b"3")
    assert path.read_bytes() == b"3"
    assert [found.name for found in tmp_path.iterdir()] == ["current"]


def test_a_folder_is_published_once(tmp_path: Path) -> None:
    (tmp_path / ".new" / "inner").mkdir(parents=True)
    (tmp_path / ".new" / "inner" / "file").write_text("x")
    durable.publish_folder(tmp_path / ".new", tmp_path / "1")
    assert (tmp_path / "1" / "inner" / "file").read_text() == "x"
    assert not (tmp_path / ".new").exists()
    (tmp_path / ".new").mkdir()
    with pytest.raises(FileExistsError):
        durable.publish_folder(tmp_path / ".new", tmp_path / "1")
