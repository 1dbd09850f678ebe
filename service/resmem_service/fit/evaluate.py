"""A bundle measured on a labelled file, by the very code that serves it."""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from resmem_service.bundle.manifest import ScoreTable
from resmem_service.bundle.store import Bundle
from resmem_service.fit.base_run import run_base
from resmem_service.fit.dataset import LabelledRows
from resmem_service.fit.labels import Labels, numbers
from resmem_service.fit.neighbours import Neighbours
from resmem_service.fit.scores import Answers, Marks, label_votes, score_table, votes
from resmem_service.fit.tuning import Setting
from resmem_service.inference.base_model import BaseModel, Provider
from resmem_service.inference.residuals import base_prediction
from resmem_service.memory.memory import ResidualMemory
from resmem_service.memory.segments.sealed_segment import SealedSegment
from resmem_service.progress import Progress

__all__ = ["evaluate"]

_BATCH_ROWS: Final = 256


def evaluate(
    bundle: Bundle,
    labelled: LabelledRows,
    *,
    provider: Provider,
    progress: Progress,
    threads: int | None = None,
    batch_rows: int = _BATCH_ROWS,
) -> ScoreTable:
    """Score base, plain kNN and ResMem on labelled rows, which no memory should be of.

    Raises:
        BundleError: the rows do not fit the bundle.
        CorruptFile: the bundle is damaged.
    """
    manifest = bundle.manifest
    targets = _targets(bundle, labelled)
    model = BaseModel(bundle.model_path, inputs=manifest.inputs, provider=provider, threads=threads)
    chosen, shape = manifest.parameters, manifest.memory_shape()
    fitted = SealedSegment.open(bundle.memories_path, shape)
    plain = Setting(chosen.k, chosen.sigma, chosen.temperature, alpha=0.0)
    memory = ResidualMemory.open(None, fitted=bundle.memories_path, shape=shape)

    def answers() -> Iterator[Answers]:
        start = 0
        for output in run_base(model, labelled.rows, batch_rows, progress):
            base = base_prediction(output.logits, manifest.task, chosen.temperature)
            found = memory.correct(output.embeddings, chosen.rule())
            # Padding, where k is above the number of memories, has weight 0 wherever it points.
            near = Neighbours(-1 - found.sequences, found.distances)
            knn = label_votes(votes(near, plain), fitted.targets[near.rows], base.shape[1])
            some = targets[start : start + len(base)]
            yield Answers(base, knn, base + found.residuals, some)
            start += len(base)

    try:
        return score_table(Marks.of(answers()), "test")
    finally:
        memory.close()


def _targets(bundle: Bundle, labelled: LabelledRows) -> NDArray[np.int32] | NDArray[np.float32]:
    manifest = bundle.manifest
    if manifest.classes is None:
        return numbers(labelled.targets, width=manifest.outputs, source=labelled.source)
    labels = Labels.decide(
        labelled.targets, width=manifest.outputs, classes=manifest.classes, source=labelled.source
    )
    return labels.encode(labelled.targets, labelled.source)
