"""Stage 2 of ResMem, from an ONNX model and labelled rows to a published bundle."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from resmem_service.bundle.manifest import EmbeddingSpec, Manifest, Parameters
from resmem_service.bundle.store import Bundle, Draft, ModelStore
from resmem_service.errors import BundleError
from resmem_service.fit.base_pass import BasePass, Represented
from resmem_service.fit.choice import Choice, Whiten, choose_parameters, kinds_to_try
from resmem_service.fit.codec_choice import AUTO, CodecChoice, asked_codec, choose_codec
from resmem_service.fit.codec_trials import Evidence, bytes_beside_residual
from resmem_service.fit.dataset import LabelledRows, read_rows
from resmem_service.fit.ef_tuning import ENOUGH, choose_ef
from resmem_service.fit.encoding import encode_rows, largest_residual
from resmem_service.fit.evaluate import evaluate
from resmem_service.fit.held_out import HeldOutRows, leave_one_out, memory_rows, unseen_halves
from resmem_service.fit.onnx_graph import BaseGraph, read_graph
from resmem_service.fit.scratch import Scratch
from resmem_service.inference.base_model import Provider
from resmem_service.inference.residuals import Task
from resmem_service.memory.rows import MemoryShape, SegmentRows
from resmem_service.memory.search.soft_knn import SoftKnn
from resmem_service.memory.segments.build import build_segment
from resmem_service.memory.segments.graph_settings import GraphSettings
from resmem_service.progress import Progress

__all__ = ["FitSettings", "fit"]

_RECALL_QUERIES: Final = 1000


@dataclass(frozen=True, slots=True)
class FitSettings:
    """Everything that a person may say to `resmem fit`."""

    model: Path
    data: str
    store: Path
    name: str
    unseen: str | None = None
    """Labelled rows that the base was not trained on."""
    test: str | None = None
    """Labelled rows looked at once, at the end."""
    task: Task | None = None
    target: str | None = None
    classes: Sequence[str] | None = None
    embedding: str | None = None
    embedding_dim: int | None = None
    outputs: Sequence[str] = ()
    whiten: Whiten = "auto"
    graph: GraphSettings = GraphSettings()  # noqa: RUF009 - immutable
    residuals: str = AUTO
    """`auto`, or the codec to store residuals with."""
    max_memories: int | None = None
    seed: int = 0
    provider: Provider = "auto"
    threads: int | None = None
    """Of the base model; None for one a CPU."""
    batch_rows: int = 256


@dataclass(frozen=True, slots=True)
class _Data:
    """The files of a fit, read and found fit for the model before the long work begins."""

    train: LabelledRows
    unseen: LabelledRows | None
    test: LabelledRows | None

    @classmethod
    def read(cls, settings: FitSettings, graph: BaseGraph) -> "_Data":
        def rows(source: str) -> LabelledRows:
            return read_rows(source, graph.inputs, target=settings.target)

        return cls(
            rows(settings.data),
            None if settings.unseen is None else rows(settings.unseen),
            None if settings.test is None else rows(settings.test),
        )


def fit(settings: FitSettings, progress: Progress) -> Bundle:
    """Fit a bundle and publish it as the next and current version of its name.

    Raises:
        BundleError: the model or the data cannot be used; nothing is published.
        OSError: the disk refused; nothing is published.
    """
    graph = read_graph(settings.model, outputs=settings.outputs, embedding=settings.embedding)
    data = _Data.read(settings, graph)
    with ModelStore(settings.store).draft(settings.name) as draft:
        # Beside the bundle, where there is room: a temporary folder may be no disk at all.
        with TemporaryDirectory(prefix="scratch-", dir=draft.path) as scratch:
            fitted = _fit(data, graph, settings, draft, Scratch(Path(scratch)), progress)
        manifest = _manifest(draft, fitted)
        if data.test is not None:
            table = evaluate(
                Bundle(draft.path, manifest),
                data.test,
                provider=settings.provider,
                threads=settings.threads,
                progress=progress,
                batch_rows=settings.batch_rows,
            )
            manifest = manifest.model_copy(update={"scores": [*manifest.scores, table]})
        return draft.publish(manifest)


@dataclass(frozen=True, slots=True)
class _Fitted:
    """What a fit came to, its files written."""

    base_pass: BasePass
    choice: Choice
    codec: CodecChoice
    parameters: Parameters
    recall: float
    memories: int


def _fit(
    data: _Data,
    graph: BaseGraph,
    settings: FitSettings,
    draft: Draft,
    scratch: Scratch,
    progress: Progress,
) -> _Fitted:
    random = np.random.default_rng(settings.seed)
    base_pass = _settle(data, graph, settings, scratch, progress)
    task = base_pass.task
    asked = asked_codec(settings.residuals, task, base_pass.width)
    train = base_pass.represent(data.train, scratch, progress)
    unseen = None if data.unseen is None else base_pass.represent(data.unseen, scratch, progress)
    kept = memory_rows(train, _room(settings, unseen), random)
    held_out = (
        leave_one_out(train, kept, random)
        if unseen is None
        else unseen_halves(unseen, len(kept), random)
    )
    memories = train.kept(kept, scratch) if len(kept) < len(train) else train
    kinds = kinds_to_try(
        settings.whiten, of_inputs=graph.of_inputs, width=train.embeddings.shape[1]
    )
    choice = choose_parameters(
        held_out,
        memories,
        task,
        kinds,
        dim=settings.embedding_dim,
        seed=settings.seed,
        progress=progress,
    )
    setting, transform = choice.setting, choice.transform
    parts = [memories] if unseen is None else [memories, unseen]
    codec = choose_codec(
        asked,
        Evidence(held_out.report.rows.outputs, choice.near, memories.outputs, task, setting),
        largest=largest_residual(parts, task),
        beside=bytes_beside_residual(transform.dim, base_pass.width, task, settings.graph.m),
        progress=progress,
    )
    base_pass.save(draft.path / "base.onnx", transform)
    rows = encode_rows(parts, task, setting.temperature, transform, codec.codec, scratch)
    shape = MemoryShape(transform.dim, base_pass.width, task, codec.codec)
    parameters, recall = _build(draft, rows, shape, choice, held_out, settings, progress)
    return _Fitted(base_pass, choice, codec, parameters, recall, len(rows))


def _settle(
    data: _Data, graph: BaseGraph, settings: FitSettings, scratch: Scratch, progress: Progress
) -> BasePass:
    base_pass = BasePass.settle(
        graph,
        data.train,
        scratch.folder,
        task=settings.task,
        classes=settings.classes,
        provider=settings.provider,
        threads=settings.threads,
        batch_rows=settings.batch_rows,
    )
    for labelled in (data.train, data.unseen, data.test):
        if labelled is not None:
            base_pass.targets(labelled)
    width = f"{base_pass.width} {'numbers' if base_pass.labels is None else 'classes'}"
    progress.say(
        f"{len(data.train):,} rows; {base_pass.task}, {width}; embedding {graph.embedding_name}"
    )
    return base_pass


def _room(settings: FitSettings, unseen: Represented | None) -> int | None:
    """How many training rows may become memories."""
    if settings.max_memories is None:
        return None
    room = settings.max_memories - (0 if unseen is None else len(unseen))
    if room < 2:
        raise BundleError(
            f"--max-memories {settings.max_memories} leaves no room for training rows"
            + ("" if unseen is None else f" beside the {len(unseen)} unseen ones")
        )
    return room


def _build(
    draft: Draft,
    rows: SegmentRows,
    shape: MemoryShape,
    choice: Choice,
    held_out: HeldOutRows,
    settings: FitSettings,
    progress: Progress,
) -> tuple[Parameters, float]:
    """Build the segment, then find out how broadly its graph must be searched."""
    setting, folder = choice.setting, draft.path / "memories"
    with progress.bar("building the graph", len(rows)) as advance:
        # Whatever it finds: the recall is measured next, at every breadth, and reported.
        build_segment(folder, rows, settings.graph, shape, progress=advance, least_recall=0)
    asked = held_out.report.first(_RECALL_QUERIES)
    ef, recall = choose_ef(
        folder,
        shape,
        rows.embeddings,
        choice.transform.apply(asked.rows.embeddings),
        SoftKnn(setting.k, setting.sigma, setting.alpha),
        own=len(asked.rows) if asked.own is None else int((asked.own >= 0).sum()),
    )
    if recall < ENOUGH:
        progress.say(
            f"warning: the graph finds {recall:.1%} of the true neighbours at ef {ef}; "
            "raise --m and --ef-construction, or lower --embedding-dim"
        )
    return Parameters(
        k=setting.k,
        sigma=setting.sigma,
        temperature=setting.temperature,
        alpha=setting.alpha,
        ef=ef,
    ), recall


def _manifest(draft: Draft, fitted: _Fitted) -> Manifest:
    base_pass, choice, codec = fitted.base_pass, fitted.choice, fitted.codec
    graph, transform = base_pass.graph, choice.transform
    return Manifest(
        name=draft.name,
        version="1",  # the store numbers it
        created=datetime.now(UTC).replace(microsecond=0),
        task=base_pass.task,
        inputs=list(graph.inputs),
        classes=None if base_pass.labels is None else list(base_pass.labels.names),
        outputs=base_pass.width,
        embedding=EmbeddingSpec(
            dim=transform.dim, tensor=graph.embedding_name, transform=transform.kind
        ),
        residuals=codec.codec.name,
        residuals_reason=codec.reason,
        codecs=codec.trials,
        parameters=fitted.parameters,
        teaching_weight=choice.teaching_weight,
        recall=fitted.recall,
        memories=fitted.memories,
        scores=[choice.table],
        files=draft.files(),
    )
