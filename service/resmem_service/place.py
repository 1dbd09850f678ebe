"""Which bundle and which state the settings mean, and how its memory is to be kept."""

from dataclasses import dataclass

from resmem_service.bundle.store import Bundle, ModelStore
from resmem_service.errors import BundleError
from resmem_service.memory.journal.retention import Retention
from resmem_service.memory.options import MemoryOptions
from resmem_service.memory.segments.folders import StateFolders
from resmem_service.settings import Settings

__all__ = ["Place", "find_place", "memory_options"]


@dataclass(frozen=True, slots=True)
class Place:
    """A bundle, and the folder of what was memorized with it."""

    bundle: Bundle
    folders: StateFolders

    def require_state(self) -> None:
        """Make sure that there is a state, for a command that would make none.

        Raises:
            BundleError: it is not there; the message says where that was, and what to do.
        """
        if not self.folders.root.is_dir():
            raise BundleError(
                f"{self.folders.root} is not there: nothing was memorized with "
                f"{self.bundle.reference} yet, or the state is in another folder: choose it with "
                "--state-dir or RESMEM_STATE_DIR"
            )


def find_place(settings: Settings) -> Place:
    """The bundle and the state that the settings name; the state need not be there yet.

    Raises:
        BundleError: there is no such bundle, or several where one is meant.
        CorruptFile: its manifest is damaged.
    """
    bundle = ModelStore(settings.store).resolve(settings.model)
    manifest = bundle.manifest
    return Place(bundle, StateFolders(settings.state_dir / manifest.name / manifest.version))


def memory_options(bundle: Bundle, settings: Settings) -> MemoryOptions:
    """How the memory of a bundle is kept: bounds, segments and their graphs, time limits."""
    return MemoryOptions(
        growing_bytes=settings.growing_bytes,
        max_growing_bytes=settings.max_growing_bytes,
        max_segment_rows=settings.max_segment_rows,
        retention=Retention(
            capacity_rows=settings.capacity_rows,
            capacity_bytes=settings.capacity_bytes,
            max_age_s=settings.max_age_s,
        ),
        busy_ms=settings.busy_ms,
        graph=bundle.manifest.graph_settings(),
    )
