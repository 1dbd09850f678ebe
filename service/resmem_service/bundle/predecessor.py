"""The version before: whose memories a newly served version does not have yet."""

import logging
import shlex
from dataclasses import dataclass
from pathlib import Path

from resmem_service.bundle.manifest import Manifest, version_number
from resmem_service.errors import CorruptFile, JournalUnavailable
from resmem_service.memory.journal.sqlite.eviction import count_memories
from resmem_service.memory.segments.folders import StateFolders

__all__ = ["Predecessor", "find_predecessor", "warn_of_predecessor"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Predecessor:
    """An older version that has memories added online."""

    version: str
    memories: int


def find_predecessor(states: Path, name: str, version: str) -> Predecessor | None:
    """The newest version before `version` that holds memories added online.

    Args:
        states: the folder of all state folders, `<name>/<version>`.
        name: of the model.
        version: of the model.

    Raises:
        JournalUnavailable, CorruptFile: the journal of an older version cannot be read.
    """
    folder = states / name
    older = [number for number in _numbers(folder) if number < int(version)]
    for number in sorted(older, reverse=True):
        memories = count_memories(StateFolders(folder / str(number)).journal)
        if memories:
            return Predecessor(str(number), memories)
    return None


def warn_of_predecessor(states: Path, store: Path, manifest: Manifest) -> None:
    """Log one warning where the version has no memories of its own and an older one has.

    For the start of a server, before it opens the state. What cannot be read is passed over: the
    old state is not what is served.
    """
    name, version = manifest.name, manifest.version
    try:
        if count_memories(StateFolders(states / name / version).journal):
            return
        before = find_predecessor(states, name, version)
    except (JournalUnavailable, CorruptFile) as error:
        _log.info("looking for memories of older versions: %s", error)
        return
    if before is None:
        return
    command = [
        "resmem", "rebase", "--model", f"{name}/{version}", "--from", before.version,
        "--store", str(store), "--state-dir", str(states),
    ]  # fmt: skip
    _log.warning(
        "version %s has no memories of its own, version %s was taught %d: take them over with `%s`",
        version,
        before.version,
        before.memories,
        shlex.join(command),
    )


def _numbers(folder: Path) -> list[int]:
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        try:
            found.append(int(version_number(path.name)))
        except ValueError:
            continue
    return found
