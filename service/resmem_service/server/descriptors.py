"""How many connections the descriptors of a process allow."""

import logging
import resource
from typing import Final

from resmem_service.telemetry.logs import fields

__all__ = ["usable_connections"]

_RESERVED: Final = 256
"""For what is no connection: the journal, segments, the pipe to the supervisor, children."""

_log = logging.getLogger(__name__)


def usable_connections(wanted: int) -> int:
    """The connections that may be open at once: `wanted`, or what the limit on descriptors leaves.

    Raises the process's limit as far as that takes and its hard limit allows.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _RESERVED
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < needed:
        soft = needed if hard == unlimited else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == unlimited or soft >= needed:
        return wanted
    usable = max(1, soft - _RESERVED, soft // 2)
    _log.warning(
        "max_connections is more than the limit on open files allows; raise it (ulimit -Hn)",
        extra=fields(max_connections=wanted, open_files=soft, used=usable),
    )
    return usable
