"""Model metadata: what the API knows of the model that it serves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from resmem_service.inference.residuals import Task
from resmem_service.inference.tensor_spec import TensorSpec

__all__ = ["Facts", "ModelMetadata"]

Facts = Mapping[str, object]
"""JSON-ready values that `/model` shows and nothing else here reads."""


@dataclass(frozen=True)
class ModelMetadata:
    """Name and version of the model, its inputs, and what its outputs mean."""

    name: str
    version: str
    task: Task
    inputs: Sequence[TensorSpec]
    classes: Sequence[str] | None
    """Names in the order of the scores; None for regression."""
    outputs: int
    """L, the width of scores, base and correction."""
    provider: str
    embedding: Facts
    parameters: Facts
    teaching_weight: float
    max_weight: float
    """Largest importance that `/memorize` takes."""
    scores: Sequence[Facts]
    """What `fit` measured on held-out rows."""
    checksums: Mapping[str, str]
    """SHA-256 of each file of the bundle."""
    memory_limits: Facts
    """The bounds of the memory that are in force."""

    @cached_property
    def labels(self) -> list[str]:
        """The name of each class; its index where the model has no names."""
        return list(self.classes or map(str, range(self.outputs)))

    @cached_property
    def class_indexes(self) -> dict[str, int]:
        """The index of each label."""
        return {label: index for index, label in enumerate(self.labels)}
