"""Packages that an installation may lack, ONNX Runtime above all: asked for where they are used.

Most commands look after files and need none of them.
"""

from importlib.util import find_spec

from resmem_service.errors import ProviderUnavailable

__all__ = ["installed", "require_onnx_runtime", "without_onnx_runtime"]


def installed(package: str) -> bool:
    """Whether a package can be found; it is not imported."""
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):  # a finder refuses it, or it is half loaded
        return False


def require_onnx_runtime() -> None:
    """Make sure that the base model has something to run on.

    Raises:
        ProviderUnavailable: ONNX Runtime is not installed; it names the extras that bring it.
    """
    if not installed("onnxruntime"):
        raise without_onnx_runtime("it is not installed")


def without_onnx_runtime(reason: object) -> ProviderUnavailable:
    """The error of whoever needs ONNX Runtime and does not get it."""
    return ProviderUnavailable(
        f"the base model needs ONNX Runtime ({reason}): pip install 'resmem-service[cpu]' or, on a "
        "machine with an NVIDIA GPU, pip install 'resmem-service[gpu]'"
    )
