"""The extra `fit`: packages that only `resmem fit` needs, asked for by name when missing."""

from importlib.util import find_spec

from service.errors import BundleError

__all__ = ["missing", "require"]


def missing(package: str, purpose: str) -> BundleError:
    """The error that names the command which installs a package of the extra."""
    return BundleError(f"{purpose} needs the package {package}: pip install 'resmem-service[fit]'")


def require(package: str, purpose: str) -> None:
    """Make sure that a package of the extra can be imported.

    Raises:
        BundleError: it is not installed.
    """
    if find_spec(package) is None:
        raise missing(package, purpose)
