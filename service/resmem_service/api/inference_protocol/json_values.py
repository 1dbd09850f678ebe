"""What the objects of a request have in common: known keys, parameters."""

from collections.abc import Mapping, Set
from typing import Any

from resmem_service.errors import InvalidInput
from resmem_service.excerpt import LONGEST_NAMED, excerpt, shortened

__all__ = ["check_keys", "parameters_of"]


def check_keys(value: Mapping[str, Any], known: Set[str], field: str | None) -> None:
    """Refuses keys that the protocol does not define, so that a misspelt one is noticed.

    Raises:
        InvalidInput: naming the key.
    """
    if value.keys() <= known:
        return
    key = next(key for key in value if key not in known)
    where = key if field is None else f"{field}.{shortened(key, LONGEST_NAMED)}"
    raise InvalidInput(f"unknown key; the known ones are: {', '.join(sorted(known))}", where)


def parameters_of(value: Mapping[str, Any], field: str | None) -> Mapping[str, Any]:
    """The `parameters` of a request or of a tensor; none where there are none.

    Those that we do not know are left alone, as the protocol has it: a client may send them to
    whoever understands them.

    Raises:
        InvalidInput: no object, or a tensor that is to be found in shared memory.
    """
    parameters = value.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise InvalidInput(
            f"the parameters are {excerpt(parameters)}; they must be an object",
            field or "parameters",
        )
    if "shared_memory_region" in parameters:
        raise InvalidInput(
            "shared memory is not served here; send the tensor in the body", field or "parameters"
        )
    return parameters
