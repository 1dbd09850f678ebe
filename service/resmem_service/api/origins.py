"""Checks which web pages may use the service from a browser, and the content type of bodies.

A page of any site can have a browser send a form, or text, to a server on its user's machine or
network, which trusts whoever reaches it. It cannot hide where it is from: a browser names the
page's `Origin` with every request that may change something. Nor can it send JSON as such without
asking first, by a preflight that nobody answers here unless `cors_origins` lists the page's origin.
"""

import re
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final

from resmem_service.api.endpoint import Header
from resmem_service.errors import ForeignOrigin, UnsupportedMediaType
from resmem_service.excerpt import excerpt

__all__ = ["Origins", "check_media_type"]

_ANY: Final = b"*"
_HARMLESS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_JSON: Final = re.compile(rb"application/(?:[\w.-]+\+)?json", re.IGNORECASE)
_BINARY: Final = b"application/octet-stream"
_PLAIN_JSON: Final = b"application/json"
_PREFLIGHT_S: Final = b"600"
_READABLE: Final = b"x-request-id, retry-after, inference-header-content-length"
_SENDABLE: Final = (
    b"authorization, content-type, content-encoding, x-request-id, inference-header-content-length"
)


class Origins:
    """The origins that may: that of the service itself, and those that an operator lists."""

    def __init__(self, allowed: Iterable[str] = (), *, keyed: bool = False) -> None:
        """`allowed` as `https://host[:port]`, or `*` for all; `keyed`: requests need a key."""
        self._allowed = frozenset(each.encode() for each in allowed)
        self._keyed = keyed

    def check(self, method: str, origin: bytes, host: bytes | None) -> None:
        """Lets a request of this `Origin` and `Host` pass.

        Raises:
            ForeignOrigin: it may change something, or costs a prediction, and comes from a page
                that nobody listed.
        """
        if method in _HARMLESS or self._is_listed(origin) or self._is_own(origin, host):
            return
        raise ForeignOrigin(
            f"a page of {excerpt(origin, 200)} sent this; list its origin in the setting "
            "cors_origins if it may"
        )

    def headers(self, origin: bytes) -> tuple[Header, ...]:
        """What an answer needs for a page of this origin to read it; nothing where it may not."""
        if not self._is_listed(origin):
            return ()
        return (
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", _READABLE),
            (b"vary", b"origin"),
        )

    @staticmethod
    def preflight(methods: Iterable[str]) -> tuple[Header, ...]:
        """What to answer, beside `headers`, to the question whether a page may."""
        return (
            (b"access-control-allow-methods", ", ".join(methods).encode()),
            (b"access-control-allow-headers", _SENDABLE),
            (b"access-control-max-age", _PREFLIGHT_S),
        )

    def _is_listed(self, origin: bytes) -> bool:
        return origin in self._allowed or _ANY in self._allowed

    def _is_own(self, origin: bytes, host: bytes | None) -> bool:
        """Whether a page came from this very service.

        A name with dots in it may be a stranger's, which he has point at this machine once his page
        is loaded (DNS rebinding): it counts only where requests need a key, which he has not.
        """
        _, _, authority = origin.lower().partition(b"://")
        if host is None or not authority or authority != host.strip().lower():
            return False
        return self._keyed or _is_local(authority)


def check_media_type(content_type: bytes, *, binary: bool) -> None:
    """Lets a body pass whose content type is JSON or, where `binary`, bytes.

    Raises:
        UnsupportedMediaType: it has another content type, such as those of forms.
    """
    if content_type == _PLAIN_JSON:
        return
    kind = content_type.partition(b";")[0].strip()
    if _JSON.fullmatch(kind) or (binary and kind.lower() == _BINARY):
        return
    also = f" or {_BINARY.decode()}" if binary else ""
    raise UnsupportedMediaType(
        f"the Content-Type of the body is {excerpt(kind, 200)}; send JSON as "
        f"`content-type: application/json`{also} (curl: -H 'content-type: application/json')"
    )


def _is_local(authority: bytes) -> bool:
    """Whether a host is an address, or a name that no public registry sells."""
    host = re.sub(rb":\d*$", b"", authority).decode("latin-1")
    if "." not in host.rstrip(".") or host.endswith(".localhost"):
        return True
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
