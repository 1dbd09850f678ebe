"""Flags that several commands have: those of settings, and types of numbers."""

from argparse import ArgumentParser
from typing import Final

from resmem_service import settings

__all__ = ["MEMORY", "MODEL", "PLACE", "add_settings", "natural", "positive"]

PLACE: Final = ("store", "model", "state_dir")
"""Which bundle and which state."""
MODEL: Final = ("provider", "threads")
"""How the base model runs."""
MEMORY: Final = (
    "growing_bytes",
    "max_growing_bytes",
    "max_segment_rows",
    "capacity_rows",
    "capacity_bytes",
    "max_age_s",
    "busy_ms",
)
"""How a memory is kept that is written to."""

_EVERYWHERE: Final = ("config", "log_level", "log_format")


def add_settings(parser: ArgumentParser, *names: str) -> None:
    """Flags for these settings and for those that every command has.

    Each is an environment variable and a key of the settings file as well.
    """
    settings.add_flags(parser, (*names, *_EVERYWHERE))


def positive(text: str) -> int:
    """An integer of at least 1, for argparse."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def natural(text: str) -> int:
    """An integer of at least 0, for argparse."""
    number = int(text)
    if number < 0:
        raise ValueError
    return number
