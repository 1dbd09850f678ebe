"""The manifest: everything that a bundle says about itself, in `manifest.json`."""

import re
from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from resmem_service.inference.residuals import Task
from resmem_service.inference.tensor_spec import TensorSpec
from resmem_service.memory.bounds import LARGEST_WEIGHT
from resmem_service.memory.rows import MemoryShape
from resmem_service.memory.search.codec import FLOAT32, ResidualCodec
from resmem_service.memory.search.soft_knn import SoftKnn
from resmem_service.memory.segments.graph_settings import GraphSettings

__all__ = [
    "FORMAT",
    "CodecTrial",
    "EmbeddingSpec",
    "FileEntry",
    "Interval",
    "Manifest",
    "Parameters",
    "ScoreTable",
    "TransformKind",
]

FORMAT: Final = 1
"""Raised when a reader of the older format could no longer serve the bundle rightly."""

WEIGHT_MARGIN: Final = 4.0
"""How many times the measured teaching weight one memory may weigh, if nothing else is set."""

TransformKind = Literal["none", "standardise", "whiten"]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_VERSION: Final = re.compile(r"[1-9][0-9]{0,8}")


def model_name(name: str) -> str:
    """Return the name of a model, which is also the name of its folder.

    Raises:
        ValueError: it would not do as a folder or in a URL.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is not a model name: up to 100 letters, digits, '.', '_' and '-', "
            "beginning with a letter or digit"
        )
    return name


def version_number(version: str) -> str:
    """Return a version, a whole number from 1 written out.

    Raises:
        ValueError: it is something else.
    """
    if not _VERSION.fullmatch(version):
        raise ValueError(f"{version!r} is not a version: they are the whole numbers from 1")
    return version


def inside(name: str) -> str:
    """A path that stays in the bundle's folder, wherever the bundle came from."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or str(path) != name or name == ".":
        raise ValueError(f"{name!r} is not a path inside a bundle")
    return name


def _codec_name(name: str) -> str:
    return ResidualCodec.named(name).name


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(_Part):
    """What a file of the bundle must be."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class EmbeddingSpec(_Part):
    """phi(x), as the served graph gives it: a transform is folded in already."""

    dim: int = Field(ge=1)
    tensor: str
    """The tensor of the user's model that it is made from; `input` for the inputs themselves."""
    transform: TransformKind
    metric: Literal["l2"] = "l2"


class Parameters(_Part):
    """What `fit` chose; the symbols of the formula."""

    k: int = Field(ge=1)
    sigma: FiniteFloat = Field(gt=0)
    temperature: FiniteFloat = Field(ge=2.0**-126)
    """No smaller than a float32 holds in full: logits are divided by it."""
    alpha: FiniteFloat = Field(ge=0)
    ef: int = Field(ge=1)

    def rule(self) -> SoftKnn:
        """The part of the parameters that the memory needs."""
        return SoftKnn(k=self.k, sigma=self.sigma, alpha=self.alpha, ef=self.ef)


class Interval(_Part):
    """A measured value with its 95 % confidence interval."""

    value: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat


class ScoreTable(_Part):
    """One measurement: base alone, plain kNN on the labels and ResMem, on the same rows."""

    held_out: Literal["leave-one-out", "unseen", "test"]
    """`leave-one-out`: rows that the base was trained on, each without its own memory, which is
    optimistic; `unseen`: rows that the base was not trained on, none of them used to choose
    parameters; `test`: a file looked at once, at the end."""
    rows: int = Field(ge=1)
    metric: Literal["accuracy", "rmse"]
    base: Interval
    knn: Interval
    resmem: Interval


class CodecTrial(_Part):
    """A way to store residuals, tried by `fit` on the reporting rows: its size and its effect.

    A score is an element of `scores` (classification: a probability; regression: a value, in the
    unit of the target). Changes are against residuals kept whole, on the same rows.
    """

    name: Annotated[str, AfterValidator(_codec_name)]
    residual_bytes: int = Field(ge=1)
    memory_bytes: FiniteFloat = Field(gt=0)
    """Of a memory altogether: graph, residual, target and the rest."""
    rows: int = Field(ge=1)
    score: FiniteFloat
    """Accuracy, or RMSE, of ResMem."""
    score_change: FiniteFloat
    turned_wrong: int | None
    """Answers that this codec turns wrong; None for regression."""
    turned_right: int | None
    largest_change: FiniteFloat = Field(ge=0)
    """Of any score of any row."""
    mean_change: FiniteFloat = Field(ge=0)
    """Mean over the rows of the largest change in each."""
    largest_relative_change: FiniteFloat | None
    """For regression: in units of the RMSE of that output."""
    dropped_mean: FiniteFloat | None
    """For top-M: the probability of a reporting row that is not kept, mean and 99th percentile."""
    dropped_p99: FiniteFloat | None


class Manifest(_Part):
    """`manifest.json`: written once, when a version is published."""

    format: Literal[1] = FORMAT
    name: Annotated[str, AfterValidator(model_name)]
    version: Annotated[str, AfterValidator(version_number)]
    created: datetime
    task: Task
    inputs: list[TensorSpec] = Field(min_length=1)
    classes: list[str] | None
    """Names in the order of the scores; None for regression."""
    outputs: int = Field(ge=1)
    """L, the width of scores, base and correction."""
    embedding: EmbeddingSpec
    residuals: Annotated[str, AfterValidator(_codec_name)] = FLOAT32.name
    """The codec of stored residuals: `float32`, `float16` or `top-M`."""
    residuals_reason: str = ""
    """Why this codec, in a sentence."""
    codecs: list[CodecTrial] = Field(default_factory=list)
    """The codecs that `fit` tried, `residuals` among them."""
    parameters: Parameters
    teaching_weight: FiniteFloat = Field(gt=0)
    """Importance with which one `/memorize` turns 99 of 100 wrong answers right."""
    recall: float = Field(ge=0, le=1)
    """Share of the true k nearest memories that the graph search finds, measured by `fit`."""
    memories: int = Field(ge=1)
    scores: list[ScoreTable]
    files: dict[Annotated[str, AfterValidator(inside)], FileEntry]

    def memory_shape(self) -> MemoryShape:
        """What every memory of this model looks like."""
        codec = ResidualCodec.named(self.residuals)
        return MemoryShape(self.embedding.dim, self.outputs, self.task, codec)

    def graph_settings(self) -> GraphSettings:
        """How segments of memories added online are built: on one thread, since the service has
        better use for the others, and held against the breadth at which they are searched."""
        return GraphSettings(threads=1, ef=max(self.parameters.ef, self.parameters.k))

    @property
    def max_weight(self) -> float:
        """The largest importance of one memory where nobody sets another.

        4 times the teaching weight, and at least 4: docs/requests.md has what that bounds.
        """
        return min(WEIGHT_MARGIN * max(1.0, self.teaching_weight), LARGEST_WEIGHT)

    @model_validator(mode="after")
    def _classes_fit(self) -> Self:
        if (self.task == "classification") != (self.classes is not None):
            raise ValueError("classes belong to classification, and only to it")
        if self.classes is not None and len(self.classes) != self.outputs:
            raise ValueError(f"{len(self.classes)} classes for {self.outputs} outputs")
        return self
