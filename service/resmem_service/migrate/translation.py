"""What one version of a model stored, in the terms of another: inputs, classes, numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resmem_service.bundle.manifest import Manifest
from resmem_service.errors import BundleError, InvalidInput
from resmem_service.inference.rows import Rows
from resmem_service.memory.journal.journal import MemoryRecord
from resmem_service.memory.rows import Targets

__all__ = ["Translation"]


class Translation:
    """From the old version to the new one.

    Attributes:
        lost: classes of the old version that the new one does not have.

    Raises:
        BundleError: no memory of the old version could fit the new one.
    """

    def __init__(self, old: Manifest, new: Manifest) -> None:
        self._old, self._new = old, new
        self._check()
        self.lost: list[str] = []
        if old.classes is not None and new.classes is not None:
            index = {name: number for number, name in enumerate(new.classes)}
            self._classes = np.array([index.get(name, -1) for name in old.classes], np.int32)
            self.lost = [name for name in old.classes if name not in index]

    def rows(self, blobs: Sequence[bytes]) -> Rows:
        """Inputs from the journal, at least one, as rows of the new version.

        Several inputs are told apart by their names, one goes by any.

        Raises:
            InvalidInput: they do not fit, or differ in shape.
            CorruptFile: one is not what the service writes.
        """
        stored = Rows.decode(blobs, self._old.inputs).arrays
        if len(stored) == 1:
            (array,) = stored.values()
            return Rows.convert(array, self._new.inputs)
        return Rows.convert(stored, self._new.inputs)

    def targets(self, records: Sequence[MemoryRecord]) -> Targets:
        """Class indices int32 `[n]` of the new version, or its numbers float32 `[n, L]`.

        Raises:
            InvalidInput: the new version does not have the class of one of them.
        """
        values: NDArray[Any] = np.array([record.target for record in records])
        if self._old.classes is None:
            return values.astype(np.float32)
        known = (values >= 0) & (values < len(self._old.classes))
        found = self._classes[np.where(known, values, 0)]
        for row in np.flatnonzero(~known | (found < 0)):
            name = self._old.classes[values[row]] if known[row] else str(values[row])
            raise InvalidInput(
                f"version {self._new.version} does not have its class {name!r}", "targets"
            )
        return found

    def _check(self) -> None:
        old, new = self._old, self._new
        if old.task != new.task:
            raise BundleError(
                f"version {old.version} is a {old.task}, version {new.version} a {new.task}: "
                "their memories have nothing in common"
            )
        if old.task == "regression" and old.outputs != new.outputs:
            raise BundleError(
                f"version {old.version} has {old.outputs} outputs, version {new.version} "
                f"{new.outputs}: their targets do not fit each other"
            )
        names = [sorted(spec.name for spec in manifest.inputs) for manifest in (old, new)]
        if names[0] != names[1] and (len(names[0]), len(names[1])) != (1, 1):
            raise BundleError(
                f"version {old.version} takes the inputs {', '.join(names[0])}, version "
                f"{new.version} {', '.join(names[1])}: what was stored for one cannot be given to "
                "the other"
            )
