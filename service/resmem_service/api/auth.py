"""Keys and their scopes: a key that may predict may not therefore teach."""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import Final, Literal

from resmem_service.errors import Forbidden, Unauthorized

__all__ = ["KeyRing", "Scope"]

Scope = Literal["predict", "memorize", "admin"]

_BEARER: Final = b"bearer "


class KeyRing:
    """Known keys, kept as SHA-256 digests. Without any the service is open to all."""

    def __init__(self, keys: Mapping[Scope, Iterable[str]]) -> None:
        """`keys` by scope; a key may have several, and one with `admin` has them all."""
        scopes: dict[bytes, set[Scope]] = {}
        for scope, secrets in keys.items():
            for secret in secrets:
                scopes.setdefault(_digest(secret.encode()), set()).add(scope)
        self._scopes = list(scopes.items())

    def admit(self, authorization: bytes | None, scope: Scope) -> None:
        """Lets a request with this `Authorization` header pass.

        Every key is compared, in constant time, so that the time taken tells nothing about them.

        Raises:
            Unauthorized: the request has no key, or an unknown one.
            Forbidden: the key is known but lacks the scope.
        """
        if not self._scopes:
            return
        if authorization is None or authorization[: len(_BEARER)].lower() != _BEARER:
            raise Unauthorized(
                "this route needs a key: send the header `Authorization: Bearer KEY`"
            )
        presented = _digest(authorization[len(_BEARER) :].strip())
        found: set[Scope] = set()
        for digest, scopes in self._scopes:
            if hmac.compare_digest(digest, presented):
                found = scopes
        if not found:
            raise Unauthorized(
                "the key in the Authorization header is not one that this service accepts"
            )
        if scope not in found and "admin" not in found:
            raise Forbidden(f"the key lacks the scope {scope!r}, which this route needs")


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
