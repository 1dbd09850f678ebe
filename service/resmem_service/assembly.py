"""Puts a backend together from a bundle: the model, its memory and the predictor, all warm."""

from resmem_service.api.lifecycle import Backend
from resmem_service.api.model_metadata import ModelMetadata
from resmem_service.bundle.predecessor import warn_of_predecessor
from resmem_service.bundle.store import Bundle
from resmem_service.inference.base_model import BaseModel
from resmem_service.inference.batcher import Limits
from resmem_service.inference.predictor import Predictor
from resmem_service.memory.memory import ResidualMemory
from resmem_service.place import memory_options
from resmem_service.settings import Settings
from resmem_service.telemetry.metrics import Metrics

__all__ = ["assemble"]


def assemble(bundle: Bundle, settings: Settings, metrics: Metrics) -> Backend:
    """Loads a bundle and opens its state; blocks until every batch size has run once.

    What it opened is closed again where it raises.

    Raises:
        BundleError, ProviderUnavailable: the model cannot run.
        CorruptFile: a file of the bundle or of the state is damaged.
        JournalUnavailable: the state folder cannot be used.
    """
    manifest = bundle.manifest
    model = BaseModel(
        bundle.model_path,
        inputs=manifest.inputs,
        provider=settings.provider,
        threads=settings.threads or None,
    )
    warn_of_predecessor(settings.state_dir, settings.store, manifest)
    memory = ResidualMemory.open(
        settings.state_dir / manifest.name / manifest.version,
        fitted=bundle.memories_path,
        shape=manifest.memory_shape(),
        options=memory_options(bundle, settings),
        observer=metrics,
    )
    try:
        predictor = Predictor(
            model,
            memory,
            task=manifest.task,
            temperature=manifest.parameters.temperature,
            rule=manifest.parameters.rule(),
            limits=Limits(
                max_batch_rows=settings.max_batch_rows,
                max_queue_rows=settings.max_queue_rows,
                max_delay_ms=settings.max_delay_ms,
                max_inline_ms=settings.max_inline_ms,
            ),
            observer=metrics,
        )
        memory.warm()
        predictor.warm_up()
    except BaseException:
        memory.close()
        raise
    return Backend(_metadata(bundle, model.provider, settings), predictor)


def _metadata(bundle: Bundle, provider: str, settings: Settings) -> ModelMetadata:
    manifest = bundle.manifest
    max_weight = manifest.max_weight if settings.max_weight is None else settings.max_weight
    return ModelMetadata(
        name=manifest.name,
        version=manifest.version,
        task=manifest.task,
        inputs=manifest.inputs,
        classes=manifest.classes,
        outputs=manifest.outputs,
        provider=provider,
        embedding=manifest.embedding.model_dump(mode="json", include={"dim", "metric"}),
        parameters=manifest.parameters.model_dump(mode="json"),
        teaching_weight=manifest.teaching_weight,
        max_weight=max_weight,
        scores=[table.model_dump(mode="json") for table in manifest.scores],
        checksums={name: entry.sha256 for name, entry in manifest.files.items()},
        memory_limits={
            "capacity_rows": settings.capacity_rows,
            "capacity_bytes": settings.capacity_bytes,
            "max_age_s": settings.max_age_s,
            "growing_bytes": settings.growing_bytes,
            "max_growing_bytes": settings.max_growing_bytes,
            "max_segment_rows": settings.max_segment_rows,
            "busy_ms": settings.busy_ms,
            "max_weight": max_weight,
        },
    )
