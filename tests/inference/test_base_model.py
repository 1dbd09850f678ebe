import logging
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from resmem_service.errors import BundleError, InvalidInput, NotReady, ProviderUnavailable
from resmem_service.inference import base_model
from resmem_service.inference.base_model import BaseModel, BaseOutput
from resmem_service.inference.rows import Rows
from resmem_service.inference.tensor_spec import TensorSpec

from tests.inference.conftest import LOOKUP_SPECS, ROOTS_SPECS, Digits

has_gpu = "CUDAExecutionProvider" in ort.get_available_providers()


def lookup_rows(*indexes: int) -> Rows:
    return Rows({"index": np.array(indexes), "factor": np.ones((len(indexes), 1), np.float32)})


def test_it_says_what_scikit_learn_says(digits: Digits) -> None:
    model = BaseModel(digits.path, inputs=digits.specs, threads=1)
    output = model.run(Rows({"pixels": digits.inputs}))
    exponents = np.exp(output.logits - output.logits.max(axis=1, keepdims=True))
    probabilities = exponents / exponents.sum(axis=1, keepdims=True)
    expected = digits.classifier.predict_proba(digits.inputs)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert output.logits.dtype == output.embeddings.dtype == np.float32
    assert output.embeddings.shape == (len(digits.inputs), 32)


def test_it_takes_several_inputs(lookup: Path) -> None:
    output = BaseModel(lookup, inputs=LOOKUP_SPECS).run(lookup_rows(4, 0))
    assert output.embeddings.tolist() == [[8, 9], [0, 1]]
    assert output.logits.tolist() == [[-8, -9], [0, -1]]


@pytest.mark.parametrize("warm", [True, False])
def test_what_the_model_refuses_is_the_clients_fault(
    lookup: Path, warm: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    model = BaseModel(lookup, inputs=LOOKUP_SPECS)
    if warm:
        assert model.warm_up(4)
    with pytest.raises(InvalidInput, match="Gather") as caught:
        model.run(lookup_rows(0, 5))
    assert caught.value.field == "inputs"
    assert "\n" not in caught.value.message
    assert capfd.readouterr().err == ""


def test_a_model_that_stops_working_is_the_services_fault(
    lookup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def run(self, *_: object) -> None:
            raise RuntimeError("CUDA failure 700")

    model = BaseModel(lookup, inputs=LOOKUP_SPECS)
    model.warm_up(1)
    monkeypatch.setattr(model, "_session", Broken())
    with pytest.raises(NotReady, match="CUDA failure 700"):
        model.run(lookup_rows(0))


def test_rows_that_are_not_finite_come_out_as_they_are(roots: Path) -> None:
    output = BaseModel(roots, inputs=ROOTS_SPECS).run(
        Rows({"x": np.array([[4.0, 4.0], [-1.0, -1.0]], np.float32)})
    )
    assert output.logits[0, 0] == 2.0
    assert np.isnan(output.logits[1, 0])


def test_warm_up_runs_the_sizes_that_come(digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    model = BaseModel(digits.path, inputs=digits.specs)
    sizes: list[int] = []
    inner = model._run

    def noted(rows: Rows) -> BaseOutput:
        sizes.append(len(rows))
        return inner(rows)

    monkeypatch.setattr(model, "_run", noted)
    assert model.warm_up(100)
    assert sizes == [1, 2, 4, 8, 16, 32, 64, 100]


def test_a_model_that_takes_no_zeros_still_serves(
    roots: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = BaseModel(roots, inputs=ROOTS_SPECS)
    monkeypatch.setattr(model, "zeros", lambda _: Rows({"x": np.zeros((1, 1, 1), np.float32)}))
    with caplog.at_level(logging.WARNING):
        assert not model.warm_up(2)
    assert "not warmed up" in caplog.text
    assert model.run(Rows({"x": np.ones((1, 3), np.float32)})).logits.tolist() == [[1.0]]


def test_a_model_that_answers_another_number_of_rows_is_refused(
    roots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Short:
        def run(self, *_: object) -> list[object]:
            return [np.ones((1, 1), np.float32), np.ones((1, 1), np.float32)]

    model = BaseModel(roots, inputs=ROOTS_SPECS)
    monkeypatch.setattr(model, "_session", Short())
    with pytest.raises(InvalidInput, match="2 rows with 1"):
        model.run(Rows({"x": np.ones((2, 3), np.float32)}))


def test_threads_are_the_cpus_that_the_process_may_use(
    digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_model, "usable_cpus", lambda: 3)
    model = BaseModel(digits.path, inputs=digits.specs)
    assert model._session.get_session_options().intra_op_num_threads == 3
    model = BaseModel(digits.path, inputs=digits.specs, threads=1)
    assert model._session.get_session_options().intra_op_num_threads == 1


def test_auto_takes_what_is_there(digits: Digits) -> None:
    model = BaseModel(digits.path, inputs=digits.specs)
    assert model.provider in {"cpu", "cuda"}
    assert BaseModel(digits.path, inputs=digits.specs, provider="cpu").provider == "cpu"


def test_a_provider_that_is_not_built_in_is_named_in_the_error(
    digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ProviderUnavailable, match=r"'tensorrt'.*which has cpu.*gpu"):
        BaseModel(digits.path, inputs=digits.specs, provider="tensorrt")


def test_a_provider_that_does_not_start_is_not_replaced_in_silence(
    digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    # onnxruntime-gpu without a driver: built in, but the session falls back to the CPU.
    present = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    inner = ort.InferenceSession
    monkeypatch.setattr(ort, "get_available_providers", lambda: present)
    monkeypatch.setattr(
        ort,
        "InferenceSession",
        lambda path, options, providers: inner(path, options, providers=providers[-1:]),
    )
    with pytest.raises(ProviderUnavailable, match="'cuda' is installed but does not start"):
        BaseModel(digits.path, inputs=digits.specs, provider="cuda")
    assert BaseModel(digits.path, inputs=digits.specs).provider == "cpu"


@pytest.mark.skipif(not has_gpu, reason="needs onnxruntime-gpu and a GPU")
def test_the_gpu_says_what_the_cpu_says(digits: Digits) -> None:
    rows = Rows({"pixels": digits.inputs})
    on_gpu = BaseModel(digits.path, inputs=digits.specs, provider="cuda").run(rows)
    on_cpu = BaseModel(digits.path, inputs=digits.specs, provider="cpu").run(rows)
    np.testing.assert_allclose(on_gpu.logits, on_cpu.logits, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize(
    ("specs", "words"),
    [
        ([TensorSpec("image", "float32", (64,))], "takes \\['pixels'\\]"),
        ([TensorSpec("pixels", "int64", (64,))], "the manifest says int64"),
    ],
)
def test_a_model_with_other_inputs_than_the_manifest_says(
    digits: Digits, specs: list[TensorSpec], words: str
) -> None:
    with pytest.raises(BundleError, match=words):
        BaseModel(digits.path, inputs=specs)


def test_a_file_that_is_no_model(tmp_path: Path, digits: Digits) -> None:
    path = tmp_path / "base.onnx"
    with pytest.raises(BundleError, match=r"base\.onnx"):
        BaseModel(path, inputs=digits.specs)
    path.write_bytes(b"not a model")
    with pytest.raises(BundleError, match=r"base\.onnx"):
        BaseModel(path, inputs=digits.specs)


def test_a_model_without_the_two_outputs(tmp_path: Path, digits: Digits) -> None:
    path = tmp_path / "base.onnx"
    path.write_bytes(digits.path.read_bytes().replace(b"embedding", b"something"))
    with pytest.raises(BundleError, match="no float32 output 'embedding'"):
        BaseModel(path, inputs=digits.specs)
