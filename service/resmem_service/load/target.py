"""The server to put under load, and requests in the form that it reads."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from resmem_service.errors import LoadFailed

__all__ = ["Target"]

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Target:
    """Where a server listens."""

    host: str
    port: int
    secure: bool = False
    prefix: str = ""
    """What stands before the routes of the service, where a proxy has it under a path."""

    @classmethod
    def parse(cls, url: str) -> Self:
        """The server of `http://host:port` or `https://host`.

        Raises:
            LoadFailed: it is no such URL.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise LoadFailed(f"{url!r} is not a URL: {error}", "url") from None
        if parts.scheme not in _PORTS or not parts.hostname:
            raise LoadFailed(f"{url!r} is not a URL; expected http://HOST:PORT", "url")
        if parts.username is not None or parts.query or parts.fragment:
            raise LoadFailed(f"{url!r} has more than a host, a port and a path", "url")
        return cls(
            parts.hostname,
            _PORTS[parts.scheme] if port is None else port,
            parts.scheme == "https",
            parts.path.rstrip("/"),
        )

    @property
    def url(self) -> str:
        """The URL that it was parsed from, in one spelling."""
        return f"{'https' if self.secure else 'http'}://{self._authority}{self.prefix}"

    def tls(self) -> ssl.SSLContext | None:
        """What to encrypt a connection with; None where it is plain."""
        return ssl.create_default_context() if self.secure else None

    def post(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
        """A whole request; the body is JSON unless the headers have another `content-type`."""
        fields = {
            "host": self._authority,
            "content-type": "application/json",
            "content-length": str(len(body)),
            **(headers or {}),
        }
        lines = [f"POST {self.prefix}{path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body

    @property
    def _authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"
