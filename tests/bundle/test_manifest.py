from typing import Any

import pytest
from pydantic import ValidationError
from resmem_service.bundle.manifest import Manifest, Parameters
from resmem_service.memory.search.soft_knn import SoftKnn

from tests.conftest import FittedModel


def changed(digits: FittedModel, **changes: Any) -> Manifest:
    content = digits.bundle.manifest.model_dump(mode="json") | changes
    return Manifest.model_validate(content)


def test_it_comes_back_from_json_as_it_was(digits: FittedModel, diabetes: FittedModel) -> None:
    for fitted in (digits, diabetes):
        manifest = fitted.bundle.manifest
        assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest


def test_parameters_make_the_rule_of_the_memory() -> None:
    parameters = Parameters(k=5, sigma=0.5, temperature=1.4, alpha=0.1, ef=64)
    assert parameters.rule() == SoftKnn(k=5, sigma=0.5, alpha=0.1, ef=64)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "-f", "a b", "x" * 101])
def test_names_are_folders_and_parts_of_urls(digits: FittedModel, name: str) -> None:
    with pytest.raises(ValidationError, match="not a model name"):
        changed(digits, name=name)


@pytest.mark.parametrize("version", ["0", "01", "-1", "1.0", "latest", ""])
def test_versions_are_whole_numbers(digits: FittedModel, version: str) -> None:
    with pytest.raises(ValidationError, match="not a version"):
        changed(digits, version=version)


@pytest.mark.parametrize("file", ["/etc/passwd", "../other/base.onnx", "a/../b", ".", "a//b"])
def test_files_stay_in_the_bundle(digits: FittedModel, file: str) -> None:
    """Bundles come from elsewhere too: verifying one must not read beside it."""
    entry = {"sha256": "0" * 64, "bytes": 1}
    with pytest.raises(ValidationError, match="not a path inside a bundle"):
        changed(digits, files={file: entry})


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"classes": None}, "classes belong to classification"),
        ({"classes": ["a", "b"]}, "2 classes for 10 outputs"),
        ({"teaching_weight": 0}, "greater than 0"),
        ({"memories": 0}, "greater than or equal to 1"),
        ({"inputs": []}, "at least 1 item"),
        ({"inputs": [{"name": "x", "dtype": "text", "shape": []}]}, "unsupported dtype"),
        ({"surprise": 1}, "Extra inputs"),
    ],
)
def test_what_contradicts_itself_is_refused(
    digits: FittedModel, changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValidationError, match=complaint):
        changed(digits, **changes)


def test_a_manifest_without_codecs_is_read(digits: FittedModel) -> None:
    """As written before codecs were tried."""
    content = digits.bundle.manifest.model_dump(mode="json")
    for name in ("codecs", "residuals_reason", "residuals"):
        del content[name]
    manifest = Manifest.model_validate(content)
    assert (manifest.residuals, manifest.codecs, manifest.residuals_reason) == ("float32", [], "")


@pytest.mark.parametrize("name", ["int8", "top-0", "FLOAT32"])
def test_residuals_are_in_a_codec_that_there_is(digits: FittedModel, name: str) -> None:
    with pytest.raises(ValidationError, match="not a residual codec"):
        changed(digits, residuals=name)


@pytest.mark.parametrize(("teaching", "bound"), [(1.9, 7.6), (1.0, 4.0), (0.2, 4.0), (9e8, 1e9)])
def test_a_memory_may_weigh_a_multiple_of_the_teaching_weight(
    digits: FittedModel, teaching: float, bound: float
) -> None:
    manifest = changed(digits, teaching_weight=teaching)
    assert manifest.max_weight == pytest.approx(bound)
