"""Affine maps of an embedding: none, standardise, whiten, and fewer dimensions.

Euclidean distance treats all axes alike; which map makes it say most is for `tuning` to find out.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from resmem_service.bundle.manifest import TransformKind
from resmem_service.errors import BundleError

__all__ = ["WIDEST", "AffineMap", "fit_map"]

WIDEST: Final = 8192
"""Beyond this many axes the eigenvectors of a covariance cost too much memory and time."""

_FLOOR: Final = 1e-9
"""Share of the largest variance below which an axis counts as constant."""
_RIDGE: Final = 0.01
"""Share of the mean variance added to each when whitening, lest noise axes are blown up."""
_SAMPLE: Final = 50_000


@dataclass(frozen=True, slots=True, eq=False)
class AffineMap:
    """`phi = x * scale + offset`, or `x @ matrix + offset`."""

    kind: TransformKind
    matrix: NDArray[np.float32]
    """`[d0, d]`, or `[d0]` for a scale of each axis."""
    offset: NDArray[np.float32]
    """`[d]`."""

    @property
    def dim(self) -> int:
        """d, the width of what comes out."""
        return len(self.offset)

    def apply(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map `[n, d0]` to `[n, d]`, as the served graph does it."""
        diagonal = self.matrix.ndim == 1
        mapped = embeddings * self.matrix if diagonal else embeddings @ self.matrix
        mapped += self.offset
        return mapped


def fit_map(
    kind: TransformKind, embeddings: NDArray[np.float32], *, dim: int | None = None, seed: int = 0
) -> AffineMap:
    """Learn a map from embeddings `[n, d0]`; with `dim` its output has at most so many axes.

    Whitening is that of the principal axes (PCA), with a ridge; axes without variance are dropped.
    Fewer dimensions are the leading principal axes.

    Raises:
        BundleError: `dim` above d0, or an embedding too wide for principal axes.
    """
    width = embeddings.shape[1]
    if dim is not None and not 1 <= dim <= width:
        raise BundleError(f"--embedding-dim {dim}: the embedding has {width} axes")
    rows = min(len(embeddings), max(_SAMPLE, 4 * width))
    if rows < len(embeddings):
        chosen = np.random.default_rng(seed).choice(len(embeddings), rows, replace=False)
        embeddings = embeddings[np.sort(chosen)]
    mean = embeddings.mean(axis=0, dtype=np.float64)
    # What rounding of the mean alone lets a constant axis vary by.
    rounding = float(np.square(1e-12 * np.abs(mean).max()))
    scale = np.ones(width)
    if kind == "standardise":
        variance = embeddings.var(axis=0, dtype=np.float64)
        constant = variance <= max(_FLOOR * variance.max(), rounding)
        # An axis that never moves says nothing; 0 keeps it silent when it moves in serving.
        scale = np.where(constant, 0.0, 1.0 / np.sqrt(np.where(constant, 1.0, variance)))
    if kind != "whiten" and dim is None:
        offset = -mean * scale if kind == "standardise" else np.zeros(width)
        return AffineMap(kind, scale.astype(np.float32), offset.astype(np.float32))
    if width > WIDEST:
        raise BundleError(
            f"the embedding has {width} axes, more than {WIDEST}: whitening and --embedding-dim "
            "need a narrower one, see --embedding; or use --whiten no"
        )
    axes, variances = _principal(embeddings, mean, scale)
    kept = variances > max(_FLOOR * float(variances[0]), rounding)
    kept[0] = True
    if dim is not None:
        kept[dim:] = False
    matrix, variances = scale[:, None] * axes[:, kept], variances[kept]
    if kind == "whiten":
        ridged = variances + _RIDGE * variances.mean()
        matrix /= np.sqrt(np.where(ridged > rounding, ridged, 1.0))
    return AffineMap(kind, matrix.astype(np.float32), (-mean @ matrix).astype(np.float32))


def _principal(
    embeddings: NDArray[np.float32], mean: NDArray[np.float64], scale: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Principal axes `[d0, d0]` as columns and their variances `[d0]`, the largest first."""
    covariance = np.zeros((len(mean), len(mean)))
    for start in range(0, len(embeddings), 8192):
        centred = (embeddings[start : start + 8192] - mean) * scale
        covariance += centred.T @ centred
    variances, axes = np.linalg.eigh(covariance / len(embeddings))
    return axes[:, ::-1], np.maximum(variances[::-1], 0.0)
