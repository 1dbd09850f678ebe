"""Requests that must be refused, in every shape that we know, each at any size.

    route x field x filling -> a body of about so many bytes, plain or in gzip

`catalogue` has them for a model with one input. A route that takes no body is in it too: with a
body of a method that it does not have, and with a long path or query.
"""

import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final
from urllib.parse import urlencode

from resmem_service.api.routes import ROUTES

__all__ = ["Model", "Refused", "catalogue", "zipped"]

Filling = Callable[[int], bytes]
"""Bytes -> about as many bytes of JSON, a value that no field has."""


@dataclass(frozen=True, slots=True)
class Model:
    """What a request must say of the model to get past the first checks."""

    name: str
    version: str
    input: str
    datatype: str
    shape: tuple[int, ...]

    def row(self) -> Any:
        """A row of zeros."""

        def nested(shape: tuple[int, ...]) -> Any:
            return [nested(shape[1:]) for _ in range(shape[0])] if shape else 0

        return nested(self.shape)


@dataclass(frozen=True, slots=True)
class Refused:
    """One shape of a request."""

    name: str
    method: str
    path: str
    """As it is sent, the query included."""
    make: Callable[[int], bytes]
    """The body for a size in bytes, that of what is unpacked."""
    headers: Mapping[str, str] = field(default_factory=dict)
    lengthen: Callable[[int], str] | None = None
    """In place of `path`, for those that are long themselves."""


def zipped(request: Refused) -> Refused:
    """The same request in gzip."""
    return Refused(
        f"{request.name}, gzip",
        request.method,
        request.path,
        lambda size: gzip.compress(request.make(size), 9),
        {**request.headers, "content-encoding": "gzip"},
    )


def _repeated(piece: str) -> Filling:
    raw = piece.encode()
    return lambda size: b"[" + raw * max(1, size // len(raw)) + b"0]"


def _text(piece: str, around: str = '""') -> Filling:
    raw = piece.encode()
    begin, end = around[:1].encode(), around[1:].encode()
    return lambda size: begin + raw * max(1, size // len(raw)) + end


FILLINGS: Final[dict[str, Filling]] = {
    "zeros": _repeated("0,"),
    "one long row": lambda size: b"[" + _repeated("0,")(size) + b"]",
    "long numbers": lambda size: b"[" + _repeated("0.12345678901234567890123,")(size) + b"]",
    "empty objects": _repeated("{},"),
    "empty lists": _repeated("[],"),
    "short lists": _repeated("[0,0],"),
    "objects": _repeated('{"a":0},'),
    "empty strings": _repeated('"",'),
    "strings": _repeated('"ab",'),
    "nulls": _repeated("null,"),
    "NaNs": lambda size: b"[" + _repeated("NaN,")(size) + b"]",
    "overflows": lambda size: b"[" + _repeated("1e999,")(size) + b"]",
    "nested lists": lambda size: b"[" * (size // 2) + b"0" + b"]" * (size // 2),
    "nested at the limit": lambda size: b"[" * 900 + _repeated("0,")(size) + b"]" * 900,
    "nested objects": lambda size: b'{"a":' * (size // 6) + b"0" + b"}" * (size // 6),
    "a ragged row": lambda size: b"[[" + b"[0]," * (size // 4) + b"0]]",
    "one long string": _text("x"),
    "one string of escapes": _text("\\u00e9"),
    "one long integer": _text("1", "1 "),
    "one long fraction": lambda size: b"0." + b"1" * size,
    "one object of many keys": lambda size: (
        b"{" + b",".join(b'"%d":0' % key for key in range(size // 12)) + b"}"
    ),
    "one object of one key": lambda size: b"{" + b'"a":0,' * (size // 6) + b'"a":0}',
}

FEW: Final = {
    name: FILLINGS[name]
    for name in (
        "zeros", "strings", "nested lists", "one long string", "one object of many keys"
    )
}  # fmt: skip
"""For fields that all are read in the same way."""

MALFORMED: Final[dict[str, Filling]] = {
    "an end that is missing": lambda size: b'{"inputs":[[' + b"0," * (size // 2),
    "blanks": lambda size: b" " * size,
    "no text": lambda size: b"\xff\xfe" * (size // 2),
    "bytes of 0": lambda size: b"\0" * size,
    "quotes": lambda size: b'{"' * (size // 2),
    "backslashes": lambda size: b'{"' + b"\\" * size,
    "NaNs without an end": lambda size: b'{"inputs":[[' + b"NaN," * (size // 4),
    "brackets": lambda size: b"[" * size,
    "a list": lambda size: b"[" + b"0," * (size // 2) + b"0]",
}

KEYS: Final[dict[str, Filling]] = {
    "a long key": lambda size: b'{"' + b"k" * size + b'":0}',
    "many keys": lambda size: b"{" + b",".join(b'"%d":0' % key for key in range(size // 12)) + b"}",
    "one key again and again": lambda size: (
        b'{"inputs":[],' + b'"inputs":0,' * (size // 11) + b'"inputs":0}'
    ),
    "one key, escaped": lambda size: (
        b'{"inputs":[],' + b'"\\u0069nputs":0,' * (size // 17) + b'"inputs":0}'
    ),
}


def catalogue(model: Model) -> list[Refused]:
    """Every shape for every route."""
    return [*_of_predict(model), *_of_memorize(model), *_of_infer(model), *_without_bodies(model)]


def _with(fields: Mapping[str, Any], key: str, filling: Filling) -> Callable[[int], bytes]:
    """A body of valid fields but for one, which comes last."""
    head = b"".join(
        b'"%b":%b,' % (name.encode(), json.dumps(value).encode())
        for name, value in fields.items()
        if name != key
    )
    return lambda size: b'{%b"%b":%b}' % (head, key.encode(), filling(size))


def _of_predict(model: Model) -> Iterator[Refused]:
    valid = {"inputs": [model.row()]}
    path = "/predict"
    yield from _fillings(path, "inputs", lambda filling: _with(valid, "inputs", filling))
    for key in ("neighbours", "top", "fields", "unknown"):
        yield from _fillings(path, key, partial(_with, valid, key), FEW)
    yield from _fillings(path, "inputs by name", lambda filling: _named(model, filling), FEW)
    yield from _odd_bodies(path)
    yield from _many_rows(path, model, {})


def _of_memorize(model: Model) -> Iterator[Refused]:
    valid = {"inputs": [model.row()], "targets": [0]}
    path = "/memorize"
    yield from _fillings(path, "targets", lambda filling: _with(valid, "targets", filling))
    for key in ("inputs", "ids", "weights", "source", "unknown"):
        yield from _fillings(path, key, partial(_with, valid, key), FEW)
    yield from _odd_bodies(path)
    yield from _many_rows(path, model, {"targets": 0, "ids": "same", "weights": 1e-300})


def _named(model: Model, filling: Filling) -> Callable[[int], bytes]:
    return lambda size: b'{"inputs":{"%b":%b}}' % (model.input.encode(), filling(size))


def _of_infer(model: Model) -> Iterator[Refused]:
    tensor: dict[str, Any] = {
        "name": model.input,
        "datatype": model.datatype,
        "shape": [1, *model.shape],
        "data": [model.row()],
    }
    valid = {"inputs": [tensor], "outputs": 7}
    path = f"/v2/models/{model.name}/infer"
    yield from _fillings(path, "inputs.data", partial(_in_tensor, tensor, "data"))
    for key in ("inputs", "outputs", "id", "parameters", "unknown"):
        yield from _fillings(path, key, partial(_with, valid, key), FEW)
    for key in ("name", "datatype", "shape", "parameters", "unknown"):
        yield from _fillings(path, f"inputs.{key}", partial(_in_tensor, tensor, key), FEW)
    yield from _odd_bodies(path)
    yield from _binary(path, tensor)
    path = f"/v2/models/{model.name}/versions/{model.version}/infer"
    yield from _fillings(path, "inputs.data", partial(_in_tensor, tensor, "data"), FEW)
    yield from _binary(path, tensor)


def _in_tensor(tensor: Mapping[str, Any], key: str, filling: Filling) -> Callable[[int], bytes]:
    # A parameter of the client's own is no reason to refuse; the second output is.
    whole = _with(tensor, key, filling)
    return lambda size: b'{"outputs":[{"name":"none"}],"inputs":[%b]}' % whole(size)


def _binary(path: str, tensor: Mapping[str, Any]) -> Iterator[Refused]:
    """Binary parts that are not what the JSON before them says."""

    def head(**more: Any) -> bytes:
        told = {key: value for key, value in tensor.items() if key != "data"}
        return json.dumps({"inputs": [{**told, **more}]}).encode()

    for name, text in (
        ("a part nobody told of", head(data=tensor["data"])),
        ("a part shorter than told", head(parameters={"binary_data_size": 2**40})),
        ("a part of a huge shape", head(shape=[2**62] * 32, parameters={"binary_data_size": 1})),
        ("a size that is a list", head(parameters={"binary_data_size": [1] * 9})),
    ):
        headers = {"inference-header-content-length": str(len(text))}
        yield Refused(
            f"POST {path}: {name}",
            "POST",
            path,
            lambda size, text=text: text + b"\x01" * size,  # type: ignore[misc]
            headers,
        )
    for name, value in (("too long", "9" * 18), ("no number", "x" * 1000), ("huge", "9" * 5000)):
        yield Refused(
            f"POST {path}: a header length that is {name}",
            "POST",
            path,
            lambda size: b"{" + b" " * size,
            {"inference-header-content-length": value},
        )


def _fillings(
    path: str,
    what: str,
    body: Callable[[Filling], Callable[[int], bytes]],
    fillings: Mapping[str, Filling] = FILLINGS,
) -> Iterator[Refused]:
    for name, filling in fillings.items():
        yield Refused(f"POST {path}: {what}: {name}", "POST", path, body(filling))


def _odd_bodies(path: str) -> Iterator[Refused]:
    for name, filling in (MALFORMED | KEYS).items():
        yield Refused(f"POST {path}: {name}", "POST", path, filling)
    for coding in ("gzip", "deflate", "zstd", "br", "x" * 1000):
        yield Refused(
            f"POST {path}: no {coding[:7]}",
            "POST",
            path,
            lambda size: b"\x1f\x8b" + b"\xff" * size,
            {"content-encoding": coding},
        )
    for kind in ("text/plain", "multipart/form-data", "x" * 1000):
        yield Refused(
            f"POST {path}: {kind[:19]}", "POST", path, lambda size: b" " * size,
            {"content-type": kind},
        )  # fmt: skip
    yield Refused(
        f"POST {path}: a page of a stranger",
        "POST",
        path,
        lambda size: b" " * size,
        {"origin": "https://" + "x" * 1000},
    )


def _many_rows(path: str, model: Model, more: Mapping[str, Any]) -> Iterator[Refused]:
    """Rows that are right, and too many; and right but for the last thing in them."""
    row = json.dumps(model.row(), separators=(",", ":")).encode()

    def rows(size: int, last: bytes = b"") -> bytes:
        count = max(1, size // (len(row) + 1))
        lists = {key: json.dumps([value] * (count + bool(last))) for key, value in more.items()}
        inputs = b",".join([row] * count + [last] * bool(last))
        extra = b"".join(b',"%b":%b' % (k.encode(), v.encode()) for k, v in lists.items())
        return b'{"inputs":[%b]%b}' % (inputs, extra)

    bad = row.replace(b"0", b'"0"') if model.shape else b'"0"'
    yield Refused(
        f"POST {path}: many rows, the last with strings", "POST", path,
        lambda size: rows(size, bad),
    )  # fmt: skip
    yield Refused(
        f"POST {path}: many rows, the last of another shape", "POST", path,
        lambda size: rows(size, b"[" + row + b"]"),
    )  # fmt: skip
    if more:
        yield Refused(f"POST {path}: many rows of one id", "POST", path, rows)


def _without_bodies(model: Model) -> Iterator[Refused]:
    """Methods that a route does not have, paths of nothing, and long ones."""
    paths = dict.fromkeys(route.path for route in ROUTES)
    for template in paths:
        path = (
            template.replace("{name}", model.name)
            .replace("{version}", model.version)
            .replace("{id}", "x")
        )
        for method in ("PUT", "PATCH"):
            yield Refused(f"{method} {template}", method, path, lambda size: b"x" * size)
    long: dict[str, Callable[[int], str]] = {
        "GET /memories/{id}": lambda size: "/memories/" + "x" * size,
        "DELETE /memories/{id}": lambda size: "/memories/" + "%C3%A9" * (size // 6),
        "GET /memories": lambda size: "/memories?" + urlencode({"source": "x" * size}),
        "GET /memories ": lambda size: "/memories?after=" + "%41" * (size // 3),
        "GET /memories  ": lambda size: "/memories?limit=" + "1" * size,
        "GET /memories   ": lambda size: "/memories?limit=x&" + "a=b&" * (size // 4),
        "DELETE /memories": lambda size: "/memories?source=" + "x" * size,
        "GET /v2/models/{name}": lambda size: "/v2/models/" + "x" * size,
        "GET /v2/models/{name}/ready": lambda size: "/v2/models/" + "x" * size + "/ready",
        "POST /v2/models/{name}/infer": lambda size: "/v2/models/" + "x" * size + "/infer",
        "GET /v2/models/{name}/versions/{version}": lambda size: (
            f"/v2/models/{model.name}/versions/" + "1" * size
        ),
        "GET nothing": lambda size: "/" + "x/" * (size // 2),
        "POST /v2 nothing": lambda size: "/v2/" + "x/" * (size // 2),
    }
    for name, lengthen in long.items():
        method = name.split()[0]
        yield Refused(f"{name.strip()}, long", method, "", lambda _: b"", lengthen=lengthen)
