"""The listening socket."""

import socket

from resmem_service.errors import InvalidSettings

__all__ = ["listening_socket", "url_of"]


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket bound to the address; nobody can connect before a server listens on it.

    Raises:
        InvalidSettings: the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise InvalidSettings(
            f"cannot listen on {_bracketed(host)}:{port}: {error.strerror}; "
            "choose another with --port or RESMEM_PORT"
        ) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Where clients find it."""
    host, port = listener.getsockname()[:2]
    return f"http://{_bracketed(host)}:{port}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
