"""What a reload did. A leaf: the API answers with it, workers and their supervisor pass it on."""

from dataclasses import dataclass

__all__ = ["Reloaded"]


@dataclass(frozen=True, slots=True)
class Reloaded:
    """A version took over from another, or from itself."""

    served: str
    """`name/version`, as `previous`."""
    previous: str
    pinned: bool
    """Whether the settings name the version, so that the store's mark was not asked for."""
