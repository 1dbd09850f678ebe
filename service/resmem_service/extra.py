"""The extras: packages that one command alone needs, asked for by name when missing."""

from resmem_service.errors import BundleError
from resmem_service.runtime import installed

__all__ = ["missing", "require"]


def missing(package: str, purpose: str, extra: str = "fit") -> BundleError:
    """The error that names the command which installs a package of an extra."""
    return BundleError(
        f"{purpose} needs the package {package}: pip install 'resmem-service[{extra}]'"
    )


def require(package: str, purpose: str, extra: str = "fit") -> None:
    """Make sure that a package of an extra can be imported.

    Raises:
        BundleError: it is not installed.
    """
    if not installed(package):
        raise missing(package, purpose, extra)
