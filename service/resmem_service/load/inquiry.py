"""What is asked of the server before the load: which model it serves, and whether it answers."""

import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import orjson

from resmem_service.errors import LoadFailed
from resmem_service.inference.tensor_spec import TensorSpec
from resmem_service.load.target import Target

__all__ = ["Inquiry", "ModelFacts"]

_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a load needs to know of `GET /model`."""

    name: str
    version: str
    inputs: list[TensorSpec]
    memories: int

    @classmethod
    def read(cls, metadata: Any) -> Self:
        """Take them from the decoded body.

        Raises:
            KeyError, TypeError, ValueError: it is not such a body.
        """
        inputs = [
            TensorSpec(one["name"], one["dtype"], tuple(one["shape"])) for one in metadata["inputs"]
        ]
        return cls(metadata["name"], metadata["version"], inputs, metadata["memory"]["size"])


class Inquiry:
    """Asks one thing at a time, without hurry."""

    def __init__(self, target: Target, headers: Mapping[str, str]) -> None:
        """`headers` go with every request: the key, if there is one."""
        self._target = target
        self._headers = dict(headers)

    def model(self) -> ModelFacts:
        """The model that is served.

        Raises:
            LoadFailed: nobody answers, or with something else than a model.
        """
        try:
            return ModelFacts.read(orjson.loads(self._ask("GET", "/model", None)))
        except (KeyError, TypeError, ValueError):
            url = self._target.url
            raise LoadFailed(f"{url}/model is not that of a ResMem service") from None

    def try_out(self, path: str, body: bytes) -> None:
        """Send one request of the load.

        Raises:
            LoadFailed: it is not answered with a status of 200 to 299; says what the server says.
        """
        self._ask("POST", path, body)

    def _ask(self, method: str, path: str, body: bytes | None) -> bytes:
        target = self._target
        kind = http.client.HTTPSConnection if target.secure else http.client.HTTPConnection
        connection = kind(target.host, target.port, timeout=_PATIENCE_S)
        headers = self._headers | ({} if body is None else {"content-type": "application/json"})
        where = f"{method} {target.url}{path}"
        try:
            connection.request(method, target.prefix + path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise LoadFailed(f"{where}: {reason}; is the server running?") from None
        finally:
            connection.close()
        if not 200 <= answer.status < 300:
            raise LoadFailed(f"{where}: {answer.status}: {_message(content)}")
        return content


def _message(body: bytes) -> str:
    """What the contract's error body says, or the beginning of any other."""
    try:
        error = orjson.loads(body)["error"]
        where = f"{error['field']}: " if error.get("field") else ""
        return f"{where}{error['message']}"
    except (KeyError, TypeError, ValueError, AttributeError):
        return body[:200].decode(errors="replace")
