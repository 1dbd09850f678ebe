"""What a backup says of itself, in `backup.json`: whose it is, and a checksum of every file."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from resmem_service.bundle.manifest import FileEntry, Manifest, inside
from resmem_service.errors import BundleError, CorruptFile
from resmem_service.maintenance.bundle_identity import bundle_identity
from resmem_service.maintenance.file_check import fault_in

__all__ = ["BackupManifest"]

_NAME: Final = "backup.json"


class BackupManifest(BaseModel):
    """Written last, when all files lie there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    model: str
    version: str
    bundle: str
    """See `bundle_identity`: the memories belong to a bundle that has the same."""
    created: datetime
    memories: int = Field(ge=0)
    revision: int = Field(ge=0)
    files: dict[Annotated[str, AfterValidator(inside)], FileEntry]

    @classmethod
    def read(cls, folder: Path) -> "BackupManifest":
        """The manifest of a backup.

        Raises:
            BundleError: the folder is none.
            CorruptFile: the manifest cannot be read as one.
        """
        file = folder / _NAME
        try:
            return cls.model_validate_json(file.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise BundleError(f"{folder} is not a backup: it has no {_NAME}") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the whole"
            raise CorruptFile(f"{file} is not a manifest: {where}: {first['msg']}") from error

    def write(self, folder: Path) -> None:
        """Puts it into a backup."""
        (folder / _NAME).write_text(self.model_dump_json(indent=2) + "\n")

    def check_owner(self, manifest: Manifest) -> None:
        """Refuses a bundle that the memories do not belong to.

        Raises:
            BundleError: it has another name or version, or is another bundle under the same.
        """
        theirs = f"{self.model}/{self.version}"
        ours = f"{manifest.name}/{manifest.version}"
        if theirs != ours:
            raise BundleError(f"the backup is of {theirs}, not of {ours}: choose with --model")
        if self.bundle != bundle_identity(manifest):
            raise BundleError(
                f"the backup was made with another bundle under the name {ours}: put that one "
                "back, or restore the backup beside it and carry the memories over with "
                "`resmem export` and `resmem import`"
            )

    def fault_in(self, folder: Path, name: str) -> str | None:
        """What is wrong with one of the files; None for nothing."""
        return fault_in(folder / name, self.files[name])
