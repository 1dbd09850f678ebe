from typing import Any

import numpy as np
import pytest
from resmem_service.bundle.manifest import CodecTrial
from resmem_service.errors import BundleError
from resmem_service.fit.codec_choice import CodecChoice, asked_codec, choose_codec
from resmem_service.fit.codec_trials import Evidence, try_codecs
from resmem_service.fit.tuning import Outputs, Setting
from resmem_service.memory.search.codec import ResidualCodec
from resmem_service.progress import Silent

from tests.fit.examples import digits_rows, linear_rows
from tests.fit.wide import wide_rows


def wide(temperature: float = 1.0) -> Evidence:
    return Evidence(*wide_rows(), "classification", Setting(10, 2.0, temperature, 0.0))


def linear(scale: float = 1.0) -> Evidence:
    queries, near, memories = linear_rows()
    asked, known = (
        Outputs(rows.logits * np.float32(scale), rows.targets * np.float32(scale))
        for rows in (queries, memories)
    )
    return Evidence(asked, near, known, "regression", Setting(20, 2.0, 1.0, 0.0))


def chosen(
    evidence: Evidence, *, asked: str | None = None, largest: float = 1.0, beside: float = 500.0
) -> CodecChoice:
    codec = None if asked is None else ResidualCodec.named(asked)
    return choose_codec(codec, evidence, largest=largest, beside=beside, progress=Silent())


def test_a_small_part_of_a_memory_stays_whole() -> None:
    narrow = Evidence(*digits_rows(), "classification", Setting(20, 2.0, 1.0, 0.0))
    choice = chosen(narrow)
    assert choice.codec.name == "float32"
    assert choice.reason == "residuals are 7% of a memory's 540 bytes, too little to save on"
    assert [trial.name for trial in choice.trials] == ["float32", "float16"]
    assert chosen(narrow, beside=50.0).codec.name == "float16"


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_wide_outputs_keep_as_few_classes_as_do(temperature: float) -> None:
    choice = chosen(wide(temperature))
    names = [trial.name for trial in choice.trials]
    assert names == ["float32", "float16", "top-8", "top-16", "top-32", "top-64", "top-128"]
    enough = [trial.name for trial in choice.trials[2:] if trial.largest_change <= 0.002]
    assert choice.codec.name == enough[0]
    assert enough[0] not in ("top-8", "top-128")
    assert f"of 1,000 classes the {choice.codec.kept} likeliest leave out" in choice.reason
    assert "bytes instead of 4,500" in choice.reason


def spoiling(monkeypatch: pytest.MonkeyPatch, changes: dict[str, dict[str, Any]]) -> None:
    """Real trials, but with these results."""

    def spoil(*arguments: Any) -> list[CodecTrial]:
        trials = try_codecs(*arguments)
        return [trial.model_copy(update=changes.get(trial.name, {})) for trial in trials]

    monkeypatch.setattr("resmem_service.fit.codec_choice.try_codecs", spoil)


def test_what_is_dropped_may_be_little_or_change_little(monkeypatch: pytest.MonkeyPatch) -> None:
    much: dict[str, Any] = {"dropped_mean": 0.011, "largest_change": 0.0021}
    spoilt = {f"top-{kept}": much for kept in (8, 16, 32, 64, 128)}
    spoiling(monkeypatch, spoilt)
    choice = chosen(wide())
    assert choice.codec.name == "float16"
    assert "2,500 bytes instead of 4,500; top-128 would change one by 0.0021" in choice.reason
    spoilt["top-64"] = {"dropped_mean": 0.009, "largest_change": 0.0021}
    assert chosen(wide()).codec.name == "top-64"
    spoilt["top-16"] = {"dropped_mean": 0.2, "largest_change": 0.0019}
    assert chosen(wide()).codec.name == "top-16"


def test_answers_that_turn_wrong_rule_a_codec_out(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = chosen(wide()).codec.kept
    spoilt: dict[str, dict[str, Any]] = {f"top-{honest}": {"turned_wrong": 9, "turned_right": 1}}
    spoiling(monkeypatch, spoilt)
    assert chosen(wide()).codec.name == f"top-{2 * honest}"
    narrow = Evidence(*digits_rows(), "classification", Setting(20, 2.0, 1.0, 0.0))
    assert chosen(narrow, beside=50.0).codec.name == "float16"
    spoilt["float16"] = {"turned_wrong": 3, "turned_right": 0}
    assert chosen(narrow, beside=50.0).reason == "float16 turns 3 answers wrong"
    # Two more wrong than right among four is what chance does.
    spoilt["float16"] = {"turned_wrong": 3, "turned_right": 1}
    assert chosen(narrow, beside=50.0).codec.name == "float16"
    spoilt["float16"] = {"largest_change": 0.0011}
    assert chosen(narrow, beside=50.0).reason == "float16 changes a score by 0.0011"


def test_regression_is_halved_while_its_errors_stay() -> None:
    assert chosen(linear(), beside=5.0).codec.name == "float16"
    assert [trial.name for trial in chosen(linear()).trials] == ["float32", "float16"]


def test_regression_in_tiny_units_stays_whole() -> None:
    choice = chosen(linear(1e-9), beside=5.0)
    assert choice.codec.name == "float32"
    assert "times the RMSE" in choice.reason


def test_what_float16_may_not_hold_stays_whole() -> None:
    choice = chosen(linear(), largest=9000.0, beside=5.0)
    assert choice.codec.name == "float32"
    assert choice.reason == "a residual of 9e+03 is too near to the end of float16's range"
    assert [trial.name for trial in choice.trials] == ["float32"]
    with pytest.raises(BundleError, match=r"a residual of 7e\+04 is beyond float16"):
        chosen(linear(), asked="float16", largest=7e4)


def test_who_asks_gets_it_and_hears_what_auto_would_take() -> None:
    choice = chosen(wide(), asked="top-3")
    assert choice.codec.name == "top-3"
    assert choice.trials[-1].name == "top-3"
    assert choice.reason.startswith("asked for with --residuals; auto would take top-")
    agreed = chosen(linear(), asked="float16", beside=5.0)
    assert agreed.reason == "asked for with --residuals"
    near_the_end = chosen(linear(), asked="float16", largest=9000.0)
    assert [trial.name for trial in near_the_end.trials] == ["float32", "float16"]


def test_names_must_fit_the_task() -> None:
    assert asked_codec("auto", "regression", 1) is None
    half = asked_codec("float16", "regression", 1)
    assert half is not None
    assert half.name == "float16"
    assert asked_codec("top-10", "classification", 10) is not None
    with pytest.raises(BundleError, match="'int8' is not a residual codec"):
        asked_codec("int8", "classification", 10)
    with pytest.raises(BundleError, match="top-4 is for classification"):
        asked_codec("top-4", "regression", 10)
    with pytest.raises(BundleError, match="top-11: the model has 10 classes only"):
        asked_codec("top-11", "classification", 10)
