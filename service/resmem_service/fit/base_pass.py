"""Stage 1 seen from `fit`: the served graph without a transform, run over files of labelled rows.

The user's model is first run on a few rows, to see what it gives (L scores or one, logits or
probabilities) and that a row's answer does not depend on its batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from resmem_service.errors import BundleError, InvalidInput
from resmem_service.fit.base_run import run_base
from resmem_service.fit.batches import batches
from resmem_service.fit.dataset import LabelledRows
from resmem_service.fit.labels import Labels, decide_task, numbers
from resmem_service.fit.onnx_graph import BaseGraph, Head
from resmem_service.fit.onnx_serving import save_model, serving_graph
from resmem_service.fit.scratch import Scratch
from resmem_service.fit.transform import AffineMap
from resmem_service.fit.tuning import Outputs
from resmem_service.inference.base_model import BaseModel, Provider
from resmem_service.inference.residuals import Task
from resmem_service.inference.rows import Rows
from resmem_service.progress import Progress

__all__ = ["BasePass", "Represented"]

_PROBE_ROWS: Final = 256
_ALIKE: Final = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Represented:
    """n rows as the base sees them; the logits may lie in a file."""

    outputs: Outputs
    embeddings: NDArray[np.float32]
    """`[n, d]`."""

    def __len__(self) -> int:
        return len(self.embeddings)

    def part(self, rows: slice | NDArray[np.int64]) -> "Represented":
        """Some of the rows."""
        return Represented(self.outputs.part(rows), self.embeddings[rows])

    def kept(self, rows: NDArray[np.int64], scratch: Scratch) -> "Represented":
        """Very many of the rows, in the order given: their logits go to a file."""
        logits, width = self.outputs.logits, self.outputs.logits.shape[1]
        table = scratch.keep(logits[rows[some]] for some in batches(len(rows), width))
        return Represented(Outputs(table, self.outputs.targets[rows]), self.embeddings[rows])


@dataclass(frozen=True, slots=True)
class BasePass:
    """The base model, its task settled, ready to run over rows."""

    graph: BaseGraph
    task: Task
    width: int
    """L: classes, or numbers per answer."""
    labels: Labels | None
    """For classification."""
    probabilities: bool
    binary: bool
    model: BaseModel
    batch_rows: int

    @classmethod
    def settle(
        cls,
        graph: BaseGraph,
        train: LabelledRows,
        scratch: Path,
        *,
        task: Task | None,
        classes: Sequence[str] | None,
        provider: Provider,
        threads: int | None,
        batch_rows: int,
    ) -> Self:
        """Find out from the first rows what the model gives, and from the targets what it means.

        Raises:
            BundleError: the model does not run, does not fit the targets, or answers a row
                differently in a batch.
        """
        probe = _open(graph, scratch / "probe.onnx", provider, threads)
        rows = train.rows.slice(0, min(_PROBE_ROWS, len(train)))
        raw = _checked(probe, rows)
        activation = graph.heads[0].activation
        if task is None:
            task = decide_task(
                train.targets, width=raw.shape[1], probabilities=activation is not None
            )
        if task == "regression":
            heads = tuple(Head(head.answered, None, head.answered) for head in graph.heads)
            graph = replace(graph, heads=heads)
            return cls(
                graph,
                task,
                raw.shape[1],
                None,
                False,
                False,
                _open(graph, scratch / "base.onnx", provider, threads),
                batch_rows,
            )
        binary = raw.shape[1] == 1
        width = 2 if binary else raw.shape[1]
        chosen = classes if classes is not None else graph.classes
        labels = Labels.decide(train.targets, width=width, classes=chosen, source=train.source)
        # Raw scores are probabilities only if every row of them is a distribution.
        inside = bool(((raw >= 0) & (raw <= 1)).all())
        sums = binary or bool(np.allclose(raw.sum(axis=1), 1.0, atol=1e-3))
        probabilities = activation is None and inside and sums
        model = _open(graph, scratch / "base.onnx", provider, threads, probabilities, binary)
        return cls(graph, task, width, labels, probabilities, binary, model, batch_rows)

    def represent(
        self, labelled: LabelledRows, scratch: Scratch, progress: Progress
    ) -> Represented:
        """Run labelled rows through the base; their logits go to a file.

        Raises:
            BundleError: a target is neither a class nor L numbers, or the model refuses a row.
            OSError: the disk refused.
        """
        targets = self.targets(labelled)
        embeddings: list[NDArray[np.float32]] = []

        def logits() -> Iterator[NDArray[np.float32]]:
            for output in run_base(self.model, labelled.rows, self.batch_rows, progress):
                embeddings.append(output.embeddings)
                yield output.logits

        table = scratch.keep(logits())
        return Represented(Outputs(table, targets), np.concatenate(embeddings))

    def targets(self, labelled: LabelledRows) -> NDArray[np.int32] | NDArray[np.float32]:
        """The targets as the memory stores them."""
        if self.labels is not None:
            return self.labels.encode(labelled.targets, labelled.source)
        return numbers(labelled.targets, width=self.width, source=labelled.source)

    def save(self, path: Path, transform: AffineMap) -> None:
        """Write the served graph, the transform folded in."""
        model = serving_graph(
            self.graph,
            probabilities=self.probabilities,
            binary=self.binary,
            transform=transform,
        )
        save_model(model, path)


def _open(
    graph: BaseGraph,
    path: Path,
    provider: Provider,
    threads: int | None,
    probabilities: bool = False,
    binary: bool = False,
) -> BaseModel:
    save_model(serving_graph(graph, probabilities=probabilities, binary=binary), path)
    return BaseModel(path, inputs=graph.inputs, provider=provider, threads=threads)


def _checked(model: BaseModel, rows: Rows) -> NDArray[np.float32]:
    """Raw scores of the first rows, the same whether they run together or alone."""
    advice = (
        "export it with a dynamic batch axis (torch.onnx.export: dynamic_axes or dynamic_shapes) "
        "and in evaluation mode"
    )
    try:
        together = model.run(rows)
        alone = [model.run(rows.slice(row, row + 1)) for row in range(min(3, len(rows)))]
    except InvalidInput as error:
        raise BundleError(
            f"the model does not run on the first rows: {error.message}; {advice}"
        ) from error
    for row, output in enumerate(alone):
        for mine, theirs in (
            (output.logits[0], together.logits[row]),
            (output.embeddings[0], together.embeddings[row]),
        ):
            scale = 1.0 + float(np.abs(theirs).max())
            if float(np.abs(mine - theirs).max()) > _ALIKE * scale:
                raise BundleError(f"the model answers row {row} differently in a batch: {advice}")
    return together.logits
