from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from resmem_service.errors import InvalidInput
from resmem_service.memory.journal.journal import Memories
from resmem_service.memory.memory import ResidualMemory
from resmem_service.memory.rows import MemoryShape
from resmem_service.memory.search import _kernel
from resmem_service.memory.search.codec import FLOAT32, ResidualCodec

from tests.memory.examples import LABELS, PIXELS, RULE


def residuals_of(
    probabilities: NDArray[np.float64], targets: NDArray[np.int32]
) -> NDArray[np.float32]:
    residuals = -probabilities
    residuals[np.arange(len(targets)), targets] += 1
    return residuals.astype(np.float32)


def likely(rows: int, width: int, sharpness: float, seed: int) -> NDArray[np.float32]:
    """Residuals of peaked probabilities, as a trained model gives them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, width)) * sharpness
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = exponents / exponents.sum(axis=1, keepdims=True)
    return residuals_of(probabilities, rng.integers(0, width, rows).astype(np.int32))


CODECS = st.one_of(
    st.sampled_from(["float32", "float16"]), st.integers(1, 12).map(lambda m: f"top-{m}")
).map(ResidualCodec.named)


@settings(deadline=None)
@given(CODECS, st.integers(12, 40), st.floats(0, 6), st.integers(0, 1000))
def test_a_stored_residual_is_as_near_as_the_codec_promises(
    codec: ResidualCodec, width: int, sharpness: float, seed: int
) -> None:
    residuals = likely(20, width, sharpness, seed)
    codes = codec.encode(residuals)
    dtype, columns = codec.stored_shape(width)
    assert codes.dtype == dtype
    assert codes.reshape(20, -1).shape == (20, columns)
    decoded = codec.decode(codes, width)
    apart = np.abs(decoded - residuals).sum(axis=1)
    rounding = 0.0 if codec.kind == "float32" else 2.0 / 2048
    assert np.all(apart <= 2 * codec.dropped_mass(residuals) + rounding + 1e-5)
    np.testing.assert_allclose(decoded.sum(axis=1), 0, atol=width * 2e-3)


@settings(deadline=None, max_examples=50)
@given(CODECS, st.sampled_from([12, 40, 70_000]), st.integers(0, 1000))
def test_the_kernel_reads_what_the_codec_wrote(codec: ResidualCodec, width: int, seed: int) -> None:
    residuals = likely(6, width, 3.0, seed)
    codes = codec.encode(residuals)
    segment = _kernel.GrowingSegment(6, 64, codec.native(width))
    segment.append(PIXELS[:6], codec.bytes_of(codes), np.ones(6, np.float32), np.arange(1, 7), 0)
    correction, sequences, _, weights = _kernel.correct(
        [segment], PIXELS[10:13], width, 6, 6, 20.0, 0.0
    )
    decoded = codec.decode(codes, width).astype(np.float64)
    expected = np.einsum("nk,nkl->nl", weights, decoded[sequences - 1])
    np.testing.assert_allclose(correction, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["float32", "float16", "top-4"])
def test_a_memory_keeps_its_codec_through_journal_seal_and_restart(
    tmp_path: Path, name: str
) -> None:
    codec = ResidualCodec.named(name)
    shape = MemoryShape(64, 10, "classification", codec)
    residuals = likely(200, 10, 4.0, 0)
    memory = ResidualMemory.open(tmp_path / "s", fitted=None, shape=shape)
    memory.append(
        Memories(
            ids=[None] * 200,
            inputs=[b""] * 200,
            targets=LABELS[:200],
            embeddings=PIXELS[:200],
            residuals=residuals,
            weights=np.ones(200),
        )
    ).result(10)
    before = memory.correct(PIXELS[:50], RULE).residuals
    memory.close()
    memory = ResidualMemory.open(tmp_path / "s", fitted=None, shape=shape)
    assert np.array_equal(memory.correct(PIXELS[:50], RULE).residuals, before)
    memory.close()
    exact = codec.decode(codec.encode(residuals), 10)
    rows = ((PIXELS[:50, None] - PIXELS[None, :200]) ** 2).sum(axis=2).argsort(axis=1)[:, :5]
    assert np.abs(before).max() <= np.abs(exact[rows]).max() + 1e-5


def test_sizes_are_what_the_names_say() -> None:
    assert FLOAT32.native(50_000).stride == 200_000
    assert ResidualCodec.named("float16").native(50_000).stride == 100_000
    assert ResidualCodec.named("top-32").native(50_000).stride == 8 + 32 * 4
    assert ResidualCodec.named("top-32").native(70_000).stride == 8 + 32 * 6


@pytest.mark.parametrize("name", ["", "float64", "top-0", "top-", "top", "top-1x"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a residual codec"):
        ResidualCodec.named(name)


def test_what_a_codec_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="too large"):
        ResidualCodec.named("float16").encode(np.array([[1e6]], np.float32))
    with pytest.raises(ValueError, match="sum to 0"):
        ResidualCodec.named("top-1").encode(np.array([[0.5, 0.5]], np.float32))
    with pytest.raises(ValueError, match="no such residual codec"):
        ResidualCodec.named("top-11").native(10)


def test_a_code_that_names_no_class_is_corrupt() -> None:
    codec = ResidualCodec.named("top-2")
    codes = codec.bytes_of(codec.encode(likely(1, 10, 1.0, 0))).copy()
    codes[0, 0:4] = np.frombuffer(np.uint32(10).tobytes(), np.uint8)
    segment = _kernel.GrowingSegment(1, 64, codec.native(10))
    segment.append(PIXELS[:1], codes, np.ones(1, np.float32), np.array([1]), 0)
    with pytest.raises(_kernel.CorruptGraph, match="names a class"):
        _kernel.correct([segment], PIXELS[:1], 10, 1, 1, 1.0, 0.0)


def test_a_row_that_cannot_be_stored_fails_its_own_request_alone(tmp_path: Path) -> None:
    shape = MemoryShape(64, 1, "regression", ResidualCodec.named("float16"))
    memory = ResidualMemory.open(tmp_path / "s", fitted=None, shape=shape)

    def request(residual: float) -> Memories:
        return Memories(
            ids=[None],
            inputs=[b""],
            targets=np.array([[residual]], np.float32),
            embeddings=PIXELS[:1],
            residuals=np.array([[residual]], np.float32),
            weights=np.ones(1),
        )

    with pytest.raises(InvalidInput, match="too large") as error:
        memory.append(request(1e6))
    assert error.value.field == "targets"
    assert memory.append(request(1.0)).result(10).size == 1
    memory.close()
