"""The choice of an embedding's transform and of the parameters, and how well it does elsewhere."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from resmem_service.bundle.manifest import ScoreTable, TransformKind
from resmem_service.fit.base_pass import Represented
from resmem_service.fit.held_out import HeldOutRows, Sample
from resmem_service.fit.neighbours import Neighbours, nearest
from resmem_service.fit.scores import Marks, held_out_answers, score_table
from resmem_service.fit.teaching import recommended_weight, required_weights
from resmem_service.fit.transform import WIDEST, AffineMap, fit_map
from resmem_service.fit.tuning import Grid, Setting, Trials, choose, score_grid
from resmem_service.inference.residuals import Task
from resmem_service.progress import Progress

__all__ = ["Choice", "Whiten", "choose_parameters", "kinds_to_try"]

Whiten = Literal["auto", "yes", "no"]


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """What was chosen, and how it does on rows that had no say."""

    transform: AffineMap
    setting: Setting
    near: Neighbours
    """Those of the reporting rows, k of them."""
    table: ScoreTable
    teaching_weight: float


def kinds_to_try(whiten: Whiten, *, of_inputs: bool, width: int) -> list[TransformKind]:
    """Transforms to try, the simplest first; raw inputs have units, which must not weigh."""
    plain: list[TransformKind] = ["standardise"] if of_inputs else ["none", "standardise"]
    if whiten == "yes":
        return ["whiten"]
    if whiten == "no" or width > WIDEST:
        return plain[:1]
    return [*plain, "whiten"]


def choose_parameters(
    held_out: HeldOutRows,
    memories: Represented,
    task: Task,
    kinds: list[TransformKind],
    *,
    dim: int | None,
    seed: int,
    progress: Progress,
) -> Choice:
    """Choose on one sample of the held-out rows, report on the other.

    Raises:
        BundleError: `dim` does not fit the embedding.
    """
    maps = [fit_map(kind, memories.embeddings, dim=dim, seed=seed) for kind in kinds]
    asked, grid, trials = held_out.choose.rows, Grid(), list[Trials]()
    with progress.bar("choosing parameters", len(maps) * len(asked)) as advance:
        for transform in maps:
            near = _nearest(held_out.choose, memories, transform, grid.ks[-1])
            trials.append(score_grid(asked.outputs, near, memories.outputs, task, grid))
            advance(len(asked))
    which, setting = choose(trials)
    near = _nearest(held_out.report, memories, maps[which], setting.k)
    rows = held_out.report.rows.outputs
    marks = Marks.of(held_out_answers(rows, near, memories.outputs, task, setting))
    required = required_weights(rows, near, memories.outputs, task, setting)
    table = score_table(marks, held_out.kind)
    if task == "classification" and table.base.high < _commonest(memories):
        progress.say(
            "warning: the base is worse than always answering the commonest class. Are the classes "
            "in the order of its outputs (--classes), and the inputs scaled as in its training?"
        )
    weight = recommended_weight(required[marks.wrong()])
    return Choice(maps[which], setting, near, table, weight)


def _nearest(sample: Sample, memories: Represented, transform: AffineMap, k: int) -> Neighbours:
    return nearest(
        transform.apply(sample.rows.embeddings),
        transform.apply(memories.embeddings),
        k,
        own=sample.own,
    )


def _commonest(memories: Represented) -> float:
    """The share of the commonest class."""
    return float(np.bincount(memories.outputs.targets).max() / len(memories))
