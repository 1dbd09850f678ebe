import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from resmem_service.bundle.store import Bundle, Draft, ModelStore
from resmem_service.errors import BundleError, CorruptFile

from tests.conftest import FittedModel


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store")


def publish(store: ModelStore, digits: FittedModel, name: str = "digits") -> Bundle:
    """The bundle of the fixture as one more version."""
    with store.draft(name) as draft:
        fill(draft, digits)
        manifest = digits.bundle.manifest.model_copy(update={"files": draft.files()})
        return draft.publish(manifest)


def fill(draft: Draft, digits: FittedModel) -> None:
    shutil.copytree(digits.bundle.memories_path, draft.path / "memories")
    shutil.copy(digits.bundle.model_path, draft.path / "base.onnx")


def test_versions_count_up_and_the_newest_is_current(
    store: ModelStore, digits: FittedModel
) -> None:
    assert [publish(store, digits).manifest.version for _ in range(3)] == ["1", "2", "3"]
    found = store.resolve(None)
    assert (found.path, found.manifest.version) == (store.root / "digits" / "3", "3")
    assert found.manifest.name == "digits"
    found.check()
    found.verify()
    assert (store.root / "digits" / "current").read_text() == "3\n"
    assert sorted(path.name for path in (store.root / "digits").iterdir()) == [
        "1",
        "2",
        "3",
        "current",
    ]


def test_a_model_is_found_by_name_and_version(store: ModelStore, digits: FittedModel) -> None:
    publish(store, digits)
    publish(store, digits)
    publish(store, digits, "other")
    assert store.names() == ["digits", "other"]
    assert store.resolve("digits").path.name == "2"
    assert store.resolve("digits/1").path.name == "1"
    (store.root / "digits" / "current").write_text("1\n")
    assert store.resolve("digits").path.name == "1"
    (store.root / "digits" / "current").unlink()
    assert store.resolve("digits").path.name == "2"


def test_what_is_missing_is_said_with_what_there_is(store: ModelStore, digits: FittedModel) -> None:
    with pytest.raises(BundleError, match=r"holds no model yet: make one with `resmem fit"):
        store.resolve(None)
    publish(store, digits)
    publish(store, digits, "other")
    with pytest.raises(BundleError, match=r"which model.*RESMEM_MODEL: digits, other"):
        store.resolve(None)
    with pytest.raises(BundleError, match=r"has no model 'digit'.*digits, other"):
        store.resolve("digit")
    with pytest.raises(BundleError, match="has no version 2; it has: 1"):
        store.resolve("digits/2")
    with pytest.raises(BundleError, match="not a version"):
        store.resolve("digits/latest")
    with pytest.raises(BundleError, match="not a model name"):
        store.resolve("../digits")


def test_current_must_name_a_version(store: ModelStore, digits: FittedModel) -> None:
    publish(store, digits)
    current = store.root / "digits" / "current"
    current.write_bytes(b"\xff\x00")
    with pytest.raises(CorruptFile, match="current names no version"):
        store.resolve(None)
    current.write_text("7")
    with pytest.raises(BundleError, match="has no version 7"):
        store.resolve(None)


def test_a_manifest_must_be_one(store: ModelStore, digits: FittedModel) -> None:
    bundle = publish(store, digits)
    manifest = bundle.path / "manifest.json"
    good = manifest.read_text()
    manifest.write_text(good.replace('"sigma"', '"sigma" ', 1))
    with pytest.raises(CorruptFile, match=r"manifest\.json differs from its checksum"):
        store.resolve(None)
    (bundle.path / "manifest.json.sha256").unlink()
    manifest.write_text(good[:100])
    with pytest.raises(CorruptFile, match=r"manifest\.json is not a manifest"):
        store.resolve(None)
    manifest.write_text(json.dumps(json.loads(good) | {"format": 2}))
    with pytest.raises(BundleError, match="upgrade the service"):
        store.resolve(None)
    manifest.write_text(json.dumps(json.loads(good) | {"memories": -1}))
    with pytest.raises(CorruptFile, match="memories: "):
        store.resolve(None)
    manifest.unlink()
    with pytest.raises(BundleError, match=r"is not a bundle: it has no manifest\.json"):
        store.resolve(None)


@pytest.mark.parametrize("file", ["base.onnx", "memories/graph.hnsw", "memories/segment.json"])
def test_check_sees_sizes_and_the_model_and_verify_sees_every_bit(
    store: ModelStore, digits: FittedModel, file: str
) -> None:
    bundle = publish(store, digits)
    path = bundle.path / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    if file == "base.onnx":
        with pytest.raises(CorruptFile, match=f"{file} has another SHA-256"):
            bundle.check()
    else:
        bundle.check()
    with pytest.raises(CorruptFile, match=f"{file} has another SHA-256"):
        bundle.verify()
    path.write_bytes(content[:-1])
    for look in (bundle.check, bundle.verify):
        with pytest.raises(CorruptFile, match=f"{file} has .* bytes, the manifest says"):
            look()
    path.unlink()
    with pytest.raises(CorruptFile, match=f"{file} is in the manifest but cannot be read"):
        bundle.check()


def test_a_draft_without_publication_leaves_nothing(store: ModelStore, digits: FittedModel) -> None:
    publish(store, digits)
    with store.draft("digits") as draft:
        fill(draft, digits)
    assert sorted(path.name for path in (store.root / "digits").iterdir()) == ["1", "current"]
    with pytest.raises(BundleError, match="not a model name"), store.draft("a/b"):
        pass


def test_a_draft_is_no_version(store: ModelStore, digits: FittedModel) -> None:
    with store.draft("digits") as draft:
        fill(draft, digits)
        assert store.names() == []
        with pytest.raises(BundleError, match="holds no model yet"):
            store.resolve("digits")


def test_drafts_of_killed_fits_are_swept_and_those_of_living_ones_are_not(
    store: ModelStore, digits: FittedModel
) -> None:
    dead = store.root / "digits" / ".building-dead"
    dead.mkdir(parents=True)
    (dead / "base.onnx").write_bytes(b"half")
    with store.draft("digits") as living, store.draft("digits") as other:
        assert not dead.exists()
        assert living.path.exists()
        fill(living, digits)
        fill(other, digits)
        manifest = digits.bundle.manifest
        assert living.publish(manifest).manifest.version == "1"
        assert other.publish(manifest).manifest.version == "2"


def test_fits_at_the_same_time_get_versions_of_their_own(
    store: ModelStore, digits: FittedModel
) -> None:
    with ThreadPoolExecutor(4) as pool:
        bundles = list(pool.map(lambda _: publish(store, digits), range(8)))
    assert sorted(int(bundle.manifest.version) for bundle in bundles) == list(range(1, 9))
    for bundle in bundles:
        assert Bundle.open(bundle.path).manifest.version == bundle.path.name
        bundle.verify()


def test_a_refusing_disk_publishes_nothing(
    store: ModelStore, digits: FittedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    with store.draft("digits") as draft:
        fill(draft, digits)
        monkeypatch.setattr(os, "fsync", refuse)
        with pytest.raises(OSError, match="No space left"):
            draft.publish(digits.bundle.manifest)
    assert store.names() == []


def test_others_may_read_what_was_published(store: ModelStore, digits: FittedModel) -> None:
    assert publish(store, digits).path.stat().st_mode & 0o055 == 0o055


def test_serving_reads_bundles_without_the_extra_fit(digits: FittedModel) -> None:
    code = (
        "import sys\n"
        "for name in ('onnx', 'pyarrow', 'tqdm', 'sklearn'): sys.modules[name] = None\n"
        "from pathlib import Path\n"
        "from resmem_service.bundle.store import ModelStore\n"
        f"ModelStore(Path({str(digits.store)!r})).resolve(None).verify()\n"
    )
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)
