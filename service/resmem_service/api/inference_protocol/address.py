"""Which model a path means."""

from resmem_service.api.model_metadata import ModelMetadata
from resmem_service.errors import ModelNotFound
from resmem_service.excerpt import excerpt

__all__ = ["check_model", "model_of"]


def model_of(path: str) -> tuple[str, str | None]:
    """Name and version in a path that ends `/models/NAME[/versions/VERSION]/VERB`."""
    *_, before, last, _ = path.split("/")
    if before == "models":
        return last, None
    return path.split("/")[-4], last


def check_model(metadata: ModelMetadata, name: str, version: str | None) -> None:
    """Lets pass what means the model that is served; without a version that one is meant.

    Raises:
        ModelNotFound: it is another.
    """
    if name != metadata.name:
        raise ModelNotFound(f"the model {excerpt(name)} is not served here; {metadata.name!r} is")
    if version is not None and version != metadata.version:
        raise ModelNotFound(
            f"version {excerpt(version)} of {name!r} is not served here; {metadata.version!r} is"
        )
