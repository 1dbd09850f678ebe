"""The base model: an ONNX Runtime session that turns rows into logits and embeddings."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from resmem_service.errors import BundleError, InvalidInput, NotReady, ProviderUnavailable
from resmem_service.inference.rows import Rows
from resmem_service.inference.tensor_spec import TensorSpec
from resmem_service.resources import usable_cpus
from resmem_service.runtime import without_onnx_runtime

# Releases from 1.29 on send usage data, names and hashes of models among it, to the runtime's maker
# unless this is set before the first import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

try:
    import onnxruntime as ort
except ImportError as error:
    raise without_onnx_runtime(error) from error

__all__ = ["BaseModel", "BaseOutput", "Provider"]

Provider = Literal["auto", "cpu", "cuda", "tensorrt"]

_PROVIDERS: Final[dict[str, str]] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_FALLBACKS: Final[dict[str, list[str]]] = {
    "cpu": [],
    "cuda": ["cpu"],
    "tensorrt": ["cuda", "cpu"],
}
_OUTPUTS: Final = ["logits", "embedding"]
_ONNX_TYPES: Final = {"float": "float32", "double": "float64"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BaseOutput:
    """What the model says to n rows, as it says it: a row of either may hold NaN."""

    logits: NDArray[np.float32]
    """`[n, L]`: `z(x)`."""
    embeddings: NDArray[np.float32]
    """`[n, d]`: `phi(x)`."""


class BaseModel:
    """One ONNX model with outputs `logits` and `embedding`, ready to run. Thread-safe."""

    def __init__(
        self,
        path: Path,
        *,
        inputs: Sequence[TensorSpec],
        provider: Provider = "auto",
        threads: int | None = None,
    ) -> None:
        """Load the model.

        `provider` auto means CUDA where it works, else the CPU. `threads` None means one for each
        CPU that this process may use, its quota of CPU time included.

        Raises:
            ProviderUnavailable: a provider asked for by name is not there.
            BundleError: no ONNX model, or one with other inputs or outputs than expected.
        """
        self.inputs = tuple(inputs)
        # ONNX Runtime's own default counts the machine's CPUs and fails to pin inside cpusets.
        self._session = _open(path, provider, threads or usable_cpus())
        names = {name: key for key, name in _PROVIDERS.items()}
        self.provider = names[self._session.get_providers()[0]]
        self._check_signature(path)
        self._warm = False

    def run(self, rows: Rows) -> BaseOutput:
        """Run the model on n rows, n at least 1.

        Raises:
            InvalidInput: the model refuses these rows, say for an index out of range.
            NotReady: the model fails on every row, its warm-up row included.
        """
        try:
            return self._run(rows)
        except _RunError as failure:
            if self._warm and not self._answers(1):
                raise NotReady(f"the base model has stopped working: {failure}") from failure
            raise InvalidInput(f"the model refuses this input: {failure}", "inputs") from failure

    def warm_up(self, max_rows: int) -> bool:
        """Run zeros at every power of two up to `max_rows` and at `max_rows` itself.

        The first run at a size allocates and, on a GPU, chooses kernels. Returns whether the model
        takes rows of zeros at all; one that does not stays cold, and the log says so.
        """
        sizes = {min(1 << power, max_rows) for power in range(max_rows.bit_length() + 1)}
        self._warm = all(self._answers(size) for size in sorted(sizes))
        if not self._warm:
            _log.warning("the base model does not take rows of zeros: it was not warmed up")
        return self._warm

    def zeros(self, size: int) -> Rows:
        """Rows of zeros, dynamic axes of length 1."""
        return Rows(
            {
                spec.name: np.zeros((size, *(axis or 1 for axis in spec.shape)), dtype=spec.dtype)
                for spec in self.inputs
            }
        )

    def _run(self, rows: Rows) -> BaseOutput:
        try:
            logits, embeddings = self._session.run(_OUTPUTS, rows.arrays)
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise _RunError(_first_line(error)) from error
        if len(logits) != len(rows) or len(embeddings) != len(rows):
            raise _RunError(f"it answered {len(rows)} rows with {len(logits)}")
        return BaseOutput(logits, embeddings)

    def _answers(self, size: int) -> bool:
        try:
            self._run(self.zeros(size))
        except _RunError as failure:
            _log.info("the warm-up fails at %d rows: %s", size, failure)
            return False
        return True

    def _check_signature(self, path: Path) -> None:
        have = {node.name: node for node in self._session.get_inputs()}
        want = {spec.name: spec for spec in self.inputs}
        if have.keys() != want.keys():
            raise BundleError(f"{path} takes {sorted(have)}, the manifest says {sorted(want)}")
        for name, node in have.items():
            onnx = node.type.removeprefix("tensor(").removesuffix(")")
            if _ONNX_TYPES.get(onnx, onnx) != want[name].dtype:
                raise BundleError(
                    f"{path}: input {name!r} is {node.type}, the manifest says {want[name].dtype}"
                )
        outputs = {node.name: node.type for node in self._session.get_outputs()}
        for name in _OUTPUTS:
            if outputs.get(name) != "tensor(float)":
                raise BundleError(f"{path} has no float32 output {name!r}; it has {outputs}")


class _RunError(Exception):
    """ONNX Runtime did not answer; whose fault it is shows later."""


def _open(path: Path, provider: Provider, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Batches differ in size: a pattern per size would make the arena grow and grow.
    options.enable_mem_pattern = False
    # Threads that spin for work take the CPU from the event loop and from the search.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A row that the model refuses is the client's to read, not the log's.
    options.log_severity_level = 4
    present = set(ort.get_available_providers())
    wanted = _wanted(provider, present)
    names = [_PROVIDERS[key] for key in (wanted, *_FALLBACKS[wanted]) if _PROVIDERS[key] in present]
    if wanted != "cpu" and hasattr(ort, "preload_dlls"):
        # CUDA and cuDNN installed as wheels lie where the system's loader does not look.
        ort.preload_dlls()
    try:
        session = ort.InferenceSession(str(path), options, providers=names)
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise BundleError(f"{path} is not a model that can run: {_first_line(error)}") from error
    used = session.get_providers()[0]
    if provider != "auto" and used != _PROVIDERS[provider]:
        raise ProviderUnavailable(
            f"the provider {provider!r} is installed but does not start here, ONNX Runtime fell "
            f"back to {used}: look for its driver and libraries, or use provider auto or cpu"
        )
    return session


def _wanted(provider: Provider, present: set[str]) -> str:
    if provider == "auto":
        return "cuda" if _PROVIDERS["cuda"] in present else "cpu"
    if _PROVIDERS[provider] not in present:
        here = [key for key, name in _PROVIDERS.items() if name in present]
        raise ProviderUnavailable(
            f"the provider {provider!r} is not in this build of ONNX Runtime, which has "
            f"{', '.join(here)}: install 'resmem-service[gpu]', or use provider auto or cpu"
        )
    return provider


def _first_line(error: Any) -> str:
    return str(error).splitlines()[0].removeprefix("[ONNXRuntimeError] : ") if str(error) else "?"
