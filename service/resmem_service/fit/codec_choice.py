"""The choice of a residual codec: what `resmem fit --residuals auto` goes by.

In this order:

1. float32 while residuals are under a third of a memory's bytes: there is little to save.
2. top-M for classification with 512 classes or more: the smallest M of 8, 16, 32, 64, 128 whose
   answers to the held-out rows are no worse than those of residuals kept whole, but for noise, and
   that on average leaves out at most 1 % of the probability of a held-out row, or changes no score
   by more than 0.002. The second matters where the base is unsure, as language models are: what is
   left out is much, but spread over thousands of classes, and no class notices.
3. float16 where it changes no score on the held-out rows by more than 0.001 (regression: 1 % of the
   RMSE of that output), no more answers turn wrong than by chance, and no residual is beyond an
   eighth of its range: memories that are learned later may be farther off than the fitted ones.
4. float32 otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final

from resmem_service.bundle.manifest import CodecTrial
from resmem_service.errors import BundleError
from resmem_service.fit.codec_trials import Evidence, try_codecs
from resmem_service.inference.residuals import Task
from resmem_service.memory.search.codec import FLOAT32, ResidualCodec
from resmem_service.progress import Progress

__all__ = ["AUTO", "CodecChoice", "asked_codec", "choose_codec"]

AUTO: Final = "auto"

_SMALL: Final = 1 / 3
"""Share of a memory's bytes below which residuals stay whole."""
_WIDE: Final = 512
"""Classes from which on top-M is tried."""
_KEPT: Final = (8, 16, 32, 64, 128)
_DROPPED: Final = 0.01
_TOP_CHANGE: Final = 2e-3
_CHANGE: Final = 1e-3
_RELATIVE_CHANGE: Final = 0.01
_CHANCE: Final = 1.645
"""95 % quantile of the normal distribution."""
_LARGEST_HALF: Final = 65_504.0
_HEADROOM: Final = 8


@dataclass(frozen=True, slots=True)
class CodecChoice:
    """What residuals are stored as, what else was tried, and why."""

    codec: ResidualCodec
    trials: list[CodecTrial]
    reason: str


def asked_codec(name: str, task: Task, width: int) -> ResidualCodec | None:
    """The codec that a person asks for, None for `auto`.

    Raises:
        BundleError: there is none of this name, or it does not fit L outputs of this task.
    """
    if name == AUTO:
        return None
    try:
        codec = ResidualCodec.named(name)
    except ValueError as error:
        raise BundleError(f"--residuals {error}; or auto") from error
    if codec.kind == "top" and task == "regression":
        raise BundleError(f"--residuals {name} is for classification: use float32 or float16")
    if codec.kept > width:
        raise BundleError(f"--residuals {name}: the model has {width} classes only")
    return codec


def choose_codec(
    asked: ResidualCodec | None,
    evidence: Evidence,
    *,
    largest: float,
    beside: float,
    progress: Progress,
) -> CodecChoice:
    """Try the codecs that come into question, and choose; `asked` leaves no choice.

    `largest` is the largest absolute residual of any memory, `beside` the bytes of a memory beside
    its residual.

    Raises:
        BundleError: `asked` cannot hold the residuals.
    """
    if asked is not None and asked.kind == "float16" and largest > _LARGEST_HALF:
        raise BundleError(
            f"--residuals float16: a residual of {largest:.3g} is beyond float16, which ends at "
            f"{_LARGEST_HALF:,.0f}: use float32, or scale the targets down"
        )
    codecs = _candidates(evidence, largest)
    if asked is not None and asked not in codecs:
        codecs.append(asked)
    trials = try_codecs(codecs, evidence, beside, progress)
    name, reason = _choose(trials, evidence, largest)
    if asked is not None:
        other = "" if asked.name == name else f"; auto would take {name}: {reason}"
        return CodecChoice(asked, trials, f"asked for with --residuals{other}")
    return CodecChoice(ResidualCodec.named(name), trials, reason)


def _candidates(evidence: Evidence, largest: float) -> list[ResidualCodec]:
    codecs = [FLOAT32]
    if largest <= _LARGEST_HALF / _HEADROOM:
        codecs.append(ResidualCodec.named("float16"))
    if evidence.task == "classification" and evidence.width >= _WIDE:
        codecs += [ResidualCodec("top", kept) for kept in _KEPT]
    return codecs


def _choose(trials: Sequence[CodecTrial], evidence: Evidence, largest: float) -> tuple[str, str]:
    """Name and reason; the rules of this page in their order."""
    named = {trial.name: trial for trial in trials}
    whole = named[FLOAT32.name]
    share = whole.residual_bytes / whole.memory_bytes
    if share < _SMALL:
        return whole.name, (
            f"residuals are {share:.0%} of a memory's {whole.memory_bytes:,.0f} bytes, "
            "too little to save on"
        )
    tops = [trial for trial in trials if trial.dropped_mean is not None]
    for trial in tops:
        assert trial.dropped_mean is not None
        faithful = trial.dropped_mean <= _DROPPED or trial.largest_change <= _TOP_CHANGE
        if faithful and _within_noise(trial):
            return trial.name, (
                f"of {evidence.width:,} classes the {trial.name.removeprefix('top-')} likeliest "
                f"leave out {trial.dropped_mean:.2%} of the probability on average, no score "
                f"changes by more than {trial.largest_change:.2g}, and the answers are as good; "
                f"{_saving(trial, whole)}"
            )
    half = named.get("float16")
    if half is None:
        return whole.name, f"a residual of {largest:.3g} is too near to the end of float16's range"
    too_much = _too_much(half)
    if too_much:
        return whole.name, f"float16 {too_much}"
    reason = f"no score changes by more than {half.largest_change:.2g}; {_saving(half, whole)}"
    if tops:
        reason += f"; {tops[-1].name} would change one by {tops[-1].largest_change:.2g}"
    return half.name, reason


def _too_much(half: CodecTrial) -> str:
    """What float16 does that it must not, if anything."""
    relative = half.largest_relative_change
    if relative is not None:
        changed = f"changes a score by {relative:.2g} times the RMSE"
        return changed if relative > _RELATIVE_CHANGE else ""
    if half.largest_change > _CHANGE:
        return f"changes a score by {half.largest_change:.2g}"
    return "" if _within_noise(half) else f"turns {half.turned_wrong} answers wrong"


def _within_noise(trial: CodecTrial) -> bool:
    """Whether answers turn wrong no more often than right, but for chance.

    The sign test on the rows whose verdict changes (McNemar, Psychometrika 12, 1947), one-sided at
    5 %.
    """
    wrong, right = trial.turned_wrong or 0, trial.turned_right or 0
    return wrong - right <= _CHANCE * sqrt(wrong + right)


def _saving(trial: CodecTrial, whole: CodecTrial) -> str:
    return f"a memory takes {trial.memory_bytes:,.0f} bytes instead of {whole.memory_bytes:,.0f}"
