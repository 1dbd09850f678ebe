"""The model store: finds a version by name, publishes a new one whole or not at all.

<root>/<name>/<version>/{manifest.json, base.onnx, memories/}      immutable
<root>/<name>/<version>/manifest.json.sha256                       as `sha256sum -c` reads it
<root>/<name>/current                                              text: the version to serve
<root>/<name>/.building-*                                          a fit at work, or a dead one
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from resmem_service.bundle.manifest import FileEntry, Manifest, model_name, version_number
from resmem_service.durable import publish_folder, sha256_of, write_atomically
from resmem_service.errors import BundleError, CorruptFile

__all__ = ["Bundle", "Draft", "ModelStore"]

_MANIFEST: Final = "manifest.json"
_CHECKSUM: Final = "manifest.json.sha256"
_MODEL: Final = "base.onnx"
_CURRENT: Final = "current"
_DRAFT: Final = ".building-"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A published version: its folder and what its manifest says."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path) -> "Bundle":
        """Read the manifest of a folder.

        Raises:
            BundleError: the folder or its manifest is not there, or of a newer format.
            CorruptFile: the manifest cannot be read as one, or differs from its checksum.
        """
        file = path / _MANIFEST
        _check_manifest(path)
        try:
            manifest = Manifest.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            raise BundleError(f"{path} is not a bundle: it has no {_MANIFEST}") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the whole"
            if where == "format":
                raise BundleError(
                    f"{file} has a format that this version of resmem-service does not read: "
                    "upgrade the service, or fit the bundle again"
                ) from error
            raise CorruptFile(f"{file} is not a manifest: {where}: {first['msg']}") from error
        return cls(path, manifest)

    @property
    def reference(self) -> str:
        """`name/version`, as `ModelStore.resolve` takes it."""
        return f"{self.manifest.name}/{self.manifest.version}"

    @property
    def model_path(self) -> Path:
        """The served graph."""
        return self.path / _MODEL

    @property
    def memories_path(self) -> Path:
        """The sealed segment of the fitted memories."""
        return self.path / "memories"

    def check(self) -> None:
        """Look at each file's size, and read the model whole; what a server does at start.

        The memories are compared with their checksums when the server reads them through.

        Raises:
            CorruptFile: a file is missing or not what was published; the message names it.
        """
        for name, entry in self.manifest.files.items():
            file = self.path / name
            try:
                size = file.stat().st_size
            except OSError as error:
                raise CorruptFile(
                    f"{file} is in the manifest but cannot be read: {error}"
                ) from error
            if size != entry.bytes:
                raise CorruptFile(f"{file} has {size} bytes, the manifest says {entry.bytes}")
        self._compare(_MODEL)

    def verify(self) -> None:
        """Read every file and compare its SHA-256.

        Raises:
            CorruptFile: a file is missing or not what was published; the message names it.
        """
        self.check()
        for name in self.manifest.files:
            self._compare(name)

    def _compare(self, name: str) -> None:
        entry = self.manifest.files.get(name)
        if entry is not None and sha256_of(self.path / name) != entry.sha256:
            raise CorruptFile(f"{self.path / name} has another SHA-256 than the manifest says")


@dataclass(frozen=True, slots=True)
class Draft:
    """A version in the making: a folder that no reader looks at."""

    path: Path
    name: str

    def files(self) -> dict[str, FileEntry]:
        """Checksums and sizes of all files written so far, by path inside the bundle."""
        found = sorted(file for file in self.path.rglob("*") if file.is_file())
        return {
            file.relative_to(self.path).as_posix(): FileEntry(
                sha256=sha256_of(file), bytes=file.stat().st_size
            )
            for file in found
            if file.name not in (_MANIFEST, _CHECKSUM)
        }

    def publish(self, manifest: Manifest) -> Bundle:
        """Make the draft the next free version and the current one.

        The version that `manifest` names is replaced by the one given. A crash leaves either the
        store as it was or a whole new version.
        """
        while True:
            version = str(max((0, *_versions(self.path.parent))) + 1)
            numbered = manifest.model_copy(update={"name": self.name, "version": version})
            (self.path / _MANIFEST).write_text(numbered.model_dump_json(indent=2) + "\n")
            checksum = sha256_of(self.path / _MANIFEST)
            (self.path / _CHECKSUM).write_text(f"{checksum}  {_MANIFEST}\n")
            final = self.path.with_name(version)
            try:
                publish_folder(self.path, final)
            except OSError:
                if not final.exists():  # else another fit took this number between the two lines
                    raise
                continue
            write_atomically(self.path.with_name(_CURRENT), f"{version}\n".encode())
            return Bundle(final, numbered)


class ModelStore:
    """A folder of models, each with its versions."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """The models that have at least one published version, sorted."""
        if not self.root.is_dir():
            return []
        return sorted(
            path.name for path in self.root.iterdir() if path.is_dir() and _versions(path)
        )

    def resolve(self, model: str | None) -> Bundle:
        """Find a bundle: `name`, `name/version`, or None where the store has only one model.

        Without a version it is the one in the model's `current` file, else the newest.

        Raises:
            BundleError: there is none, or several where one is meant; says what there is.
            CorruptFile: the `current` file or the manifest is damaged.
        """
        name, _, version = (model or self._only()).partition("/")
        try:
            folder = self.root / model_name(name)
            chosen = version_number(version) if version else ""
        except ValueError as error:
            raise BundleError(str(error)) from error
        versions = _versions(folder) if folder.is_dir() else []
        if not versions:
            raise BundleError(f"{self.root} has no model {name!r}; {self._what_there_is()}")
        chosen = chosen or _current(folder) or str(max(versions))
        if int(chosen) not in versions:
            there = ", ".join(map(str, sorted(versions)))
            raise BundleError(f"{folder} has no version {chosen}; it has: {there}")
        return Bundle.open(folder / chosen)

    def verified(self, model: str | None) -> Bundle:
        """Find a bundle, see `resolve`, and read every byte of it.

        Raises:
            BundleError, CorruptFile: see `resolve` and `Bundle.verify`.
        """
        bundle = self.resolve(model)
        bundle.verify()
        return bundle

    def use(self, model: str) -> Bundle:
        """Mark a version, `name/version`, as the one to serve from now on.

        Raises:
            BundleError: there is none, or `model` names no version.
            CorruptFile: a file of it is missing or has another size; the mark stays where it was.
        """
        if "/" not in model:
            raise BundleError(f"which version of {model!r}? Say it as NAME/VERSION")
        bundle = self.resolve(model)
        bundle.check()
        version = bundle.manifest.version
        write_atomically(bundle.path.with_name(_CURRENT), f"{version}\n".encode())
        return bundle

    @contextmanager
    def draft(self, name: str) -> Iterator[Draft]:
        """Open a draft of the next version; without `publish` nothing of it stays.

        Raises:
            BundleError: `name` will not do as the name of a model.
        """
        try:
            folder = self.root / model_name(name)
        except ValueError as error:
            raise BundleError(str(error), "name") from error
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        lock = None
        while lock is None:  # a sweep of another fit may come between these two lines
            path = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=folder))
            lock = _lock(path)
        # mkdtemp lets nobody else in; a server often runs as another user.
        path.chmod(0o755)
        try:
            yield Draft(path, name)
        finally:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)

    def _only(self) -> str:
        names = self.names()
        if len(names) != 1:
            raise BundleError(f"which model? {self._what_there_is()}")
        return names[0]

    def _what_there_is(self) -> str:
        names = self.names()
        if not names:
            return (
                f"{self.root} holds no model yet: make one with `resmem fit --model base.onnx "
                f"--data train.npz --store {self.root} --name NAME`"
            )
        return f"choose one with --model or RESMEM_MODEL: {', '.join(names)}"


def _check_manifest(path: Path) -> None:
    """Compares a manifest with the checksum beside it; bundles of before have none.

    Raises:
        CorruptFile: they differ.
    """
    try:
        recorded = (path / _CHECKSUM).read_bytes().split()
        found = sha256_of(path / _MANIFEST)
    except FileNotFoundError:
        return
    if recorded[:1] != [found.encode()]:
        raise CorruptFile(f"{path / _MANIFEST} differs from its checksum in {_CHECKSUM}")


def _versions(folder: Path) -> list[int]:
    found = []
    for path in folder.iterdir():
        try:
            number = int(version_number(path.name))
        except ValueError:
            continue
        if path.is_dir():
            found.append(number)
    return found


def _current(folder: Path) -> str | None:
    file = folder / _CURRENT
    try:
        return version_number(file.read_text(errors="replace").strip())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise CorruptFile(f"{file} names no version: {error}") from error


def _lock(path: Path) -> int | None:
    """Hold a draft while its maker lives; None if somebody else does, or it has gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _sweep(folder: Path) -> None:
    """Remove the drafts of fits that were killed."""
    for path in folder.glob(f"{_DRAFT}*"):
        lock = _lock(path)
        if lock is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)
