import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from resmem_service.errors import InvalidInput, JournalUnavailable, NotReady
from resmem_service.inference.base_model import BaseModel
from resmem_service.inference.batcher import Limits
from resmem_service.inference.observer import OnlineScores, Stage
from resmem_service.inference.predictor import Predictor, _not_finite
from resmem_service.inference.residuals import Task
from resmem_service.inference.rows import Rows
from resmem_service.memory.journal.journal import Memories
from resmem_service.memory.memory import ResidualMemory
from resmem_service.memory.rows import MemoryShape
from resmem_service.memory.search.soft_knn import SoftKnn

from tests.inference.conftest import LOOKUP_SPECS, ROOTS_SPECS, Digits
from tests.inference.items import PATIENCE_S

RULE = SoftKnn(k=5, sigma=0.7)
TEMPERATURE = 1.4


class Watcher:
    """An observer that keeps all it hears."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.waits: list[float] = []
        self.stages: list[Stage] = []
        self.nearest: list[float] = []
        self.magnitudes: list[float] = []
        self.learned: list[OnlineScores] = []

    def on_batch(self, rows: int, waits: Sequence[float]) -> None:
        self.batches.append(rows)
        self.waits.extend(waits)

    def on_stage(self, stage: Stage, seconds: float) -> None:
        assert seconds >= 0
        self.stages.append(stage)

    def on_corrections(self, nearest: NDArray[np.float64], magnitudes: NDArray[np.float32]) -> None:
        self.nearest.extend(nearest.tolist())
        self.magnitudes.extend(magnitudes.tolist())

    def on_learned(self, scores: OnlineScores) -> None:
        self.learned.append(scores)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[ResidualMemory]:
    memory = ResidualMemory.open(
        tmp_path / "state", fitted=None, shape=MemoryShape(32, 10, "classification")
    )
    yield memory
    memory.close()


def run(
    model: BaseModel,
    memory: ResidualMemory,
    scenario: Callable[[Predictor], Awaitable[None]],
    *,
    task: Task = "classification",
    limits: Limits | None = None,
    observer: Watcher | None = None,
) -> None:
    async def whole() -> None:
        predictor = Predictor(
            model,
            memory,
            task=task,
            temperature=TEMPERATURE,
            rule=RULE,
            limits=limits,
            observer=observer,
        )
        predictor.warm_up()
        predictor.start()
        await scenario(predictor)
        await predictor.close()
        assert predictor.queued_rows == 0

    asyncio.run(asyncio.wait_for(whole(), PATIENCE_S))


def base_of(digits: Digits) -> BaseModel:
    return BaseModel(digits.path, inputs=digits.specs, threads=1)


def rows_of(digits: Digits, start: int, stop: int) -> Rows:
    return Rows({"pixels": digits.inputs[start:stop]})


async def learn(
    predictor: Predictor, digits: Digits, start: int, stop: int, weight: float = 1.0
) -> None:
    count = stop - start
    await predictor.memorize(
        rows_of(digits, start, stop),
        targets=digits.labels[start:stop],
        ids=[f"row-{row}" for row in range(start, stop)],
        weights=np.full(count, weight),
        source="test",
    )


def expected_scores(
    digits: Digits, queries: slice, memories: slice
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Base and scores by the formula of the paper, in float64, from scikit-learn's weights."""

    def base_and_embedding(
        inputs: NDArray[np.float32],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        (w0, w1), (b0, b1) = digits.classifier.coefs_, digits.classifier.intercepts_
        embedding = np.maximum(inputs.astype(np.float64) @ w0 + b0, 0)
        scaled = (embedding @ w1 + b1) / TEMPERATURE
        powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True), embedding

    base, embeddings = base_and_embedding(digits.inputs[queries])
    known, places = base_and_embedding(digits.inputs[memories])
    missing = np.eye(10)[digits.labels[memories]] - known
    distances = np.linalg.norm(embeddings[:, None] - places[None], axis=2)
    scores = base.copy()
    for row, distance in enumerate(distances):
        nearest = np.argsort(distance)[: RULE.k]
        weights = np.exp(-(distance[nearest] - distance.min()) / RULE.sigma)
        scores[row] += weights @ missing[nearest] / weights.sum()
    return base, scores


def test_scores_are_base_plus_correction_by_the_formula(
    digits: Digits, memory: ResidualMemory
) -> None:
    async def scenario(predictor: Predictor) -> None:
        await learn(predictor, digits, 0, 200)
        predictions = await predictor.predict(rows_of(digits, 200, 300))
        base, scores = expected_scores(digits, slice(200, 300), slice(0, 200))
        np.testing.assert_allclose(predictions.base, base, atol=1e-5)
        np.testing.assert_allclose(predictions.scores, scores, atol=1e-4)
        np.testing.assert_array_equal(
            predictions.scores, predictions.base + predictions.correction.residuals
        )
        np.testing.assert_allclose(predictions.scores.sum(axis=1), 1, atol=1e-5)
        assert predictions.memory_size == 200
        assert predictions.revision > 0

    run(base_of(digits), memory, scenario)


def test_without_memories_the_base_speaks_alone(digits: Digits, memory: ResidualMemory) -> None:
    async def scenario(predictor: Predictor) -> None:
        predictions = await predictor.predict(rows_of(digits, 0, 3))
        np.testing.assert_array_equal(predictions.scores, predictions.base)
        assert (predictions.memory_size, predictions.revision) == (0, 0)

    watcher = Watcher()
    run(base_of(digits), memory, scenario, observer=watcher)
    assert watcher.nearest == [np.inf] * 4  # three rows and the warm-up's
    assert watcher.magnitudes == [0.0] * 4


def test_a_mistake_that_is_memorized_with_weight_is_right_the_next_time(
    digits: Digits, memory: ResidualMemory
) -> None:
    async def scenario(predictor: Predictor) -> None:
        await learn(predictor, digits, 0, 100)
        predictions = await predictor.predict(rows_of(digits, 100, 400))
        wrong = 100 + int((predictions.scores.argmax(axis=1) != digits.labels[100:400]).argmax())
        row = rows_of(digits, wrong, wrong + 1)
        before = await predictor.predict(row)
        assert before.scores.argmax() != digits.labels[wrong]
        await learn(predictor, digits, wrong, wrong + 1, weight=1000.0)
        after = await predictor.predict(row)
        assert after.scores.argmax() == digits.labels[wrong]
        assert after.revision > before.revision
        assert after.memory_size == before.memory_size + 1
        assert after.correction.distances[0, 0] < 1e-3
        (found,) = memory.records.describe([int(after.correction.sequences[0, 0])])
        assert found is not None
        assert found.id == f"row-{wrong}"

    run(base_of(digits), memory, scenario)


@pytest.mark.parametrize("max_batch_rows", [1, 7, 256])
def test_however_rows_are_batched_the_answer_is_the_same(
    digits: Digits, memory: ResidualMemory, max_batch_rows: int
) -> None:
    async def scenario(predictor: Predictor) -> None:
        await learn(predictor, digits, 0, 50)
        whole = await predictor.predict(rows_of(digits, 50, 90))
        assert len(whole) == 40
        singles = await asyncio.gather(
            *(predictor.predict(rows_of(digits, row, row + 1)) for row in range(50, 90))
        )
        for row, one in enumerate(singles):
            np.testing.assert_allclose(one.scores[0], whole.scores[row], atol=1e-5)
            np.testing.assert_array_equal(
                one.correction.sequences[0], whole.correction.sequences[row]
            )

    run(base_of(digits), memory, scenario, limits=Limits(max_batch_rows=max_batch_rows))


def test_each_row_is_scored_before_it_is_learned_and_once(
    digits: Digits, memory: ResidualMemory
) -> None:
    watcher = Watcher()

    async def scenario(predictor: Predictor) -> None:
        await learn(predictor, digits, 0, 16)
        (first,) = watcher.learned
        assert first.rows == 16
        assert first.base_loss == first.resmem_loss
        assert first.base_errors == first.resmem_errors > 0
        await learn(predictor, digits, 0, 16)
        assert watcher.learned == [first]

    run(base_of(digits), memory, scenario, observer=watcher)
    assert watcher.stages[:3] == ["base", "search", "combine"]
    assert sum(watcher.batches) == 32
    assert len(watcher.waits) == 2


def test_of_many_rows_a_sample_is_scored_before_all_are_learned(
    digits: Digits, memory: ResidualMemory
) -> None:
    watcher = Watcher()

    async def scenario(predictor: Predictor) -> None:
        await learn(predictor, digits, 0, 100)
        await learn(predictor, digits, 100, 400)
        first, second = watcher.learned
        assert first.rows == 15  # each seventh
        assert first.base_loss == first.resmem_loss
        assert second.rows == 16
        assert second.resmem_loss < second.base_loss
        # Learned as if each had been predicted: the residuals are those of the base's answer.
        taught = await predictor.predict(rows_of(digits, 100, 110))
        assert (taught.correction.distances[:, 0] == 0).all()
        np.testing.assert_array_equal(taught.scores.argmax(axis=1), digits.labels[100:110])

    run(base_of(digits), memory, scenario, observer=watcher)
    assert memory.size == 400


def test_what_is_kept_can_be_read_back_as_rows(digits: Digits, memory: ResidualMemory) -> None:
    async def scenario(predictor: Predictor) -> None:
        appended = await predictor.memorize(
            rows_of(digits, 0, 2),
            targets=digits.labels[:2],
            ids=[None, "mine"],
            weights=np.ones(2),
            source=None,
        )
        assert appended.created == 2
        assert appended.ids[1] == "mine"
        assert memory.records.find("mine").target == digits.labels[1]

    run(base_of(digits), memory, scenario)


def test_a_bad_target_is_refused_and_nothing_is_kept(
    digits: Digits, memory: ResidualMemory
) -> None:
    async def scenario(predictor: Predictor) -> None:
        with pytest.raises(InvalidInput, match="row 1") as caught:
            await predictor.memorize(
                rows_of(digits, 0, 2),
                targets=np.array([3, 10], np.int32),
                ids=[None, None],
                weights=np.ones(2),
                source=None,
            )
        assert caught.value.field == "targets"
        assert memory.size == 0

    run(base_of(digits), memory, scenario)


def test_a_memory_that_cannot_be_written_still_predicts(digits: Digits) -> None:
    memory = ResidualMemory.open(None, fitted=None, shape=MemoryShape(32, 10, "classification"))

    async def scenario(predictor: Predictor) -> None:
        with pytest.raises(JournalUnavailable):
            await learn(predictor, digits, 0, 1)
        assert len(await predictor.predict(rows_of(digits, 0, 1))) == 1

    run(base_of(digits), memory, scenario)
    memory.close()


def test_a_caller_who_gives_up_does_not_cancel_the_write(
    digits: Digits, memory: ResidualMemory
) -> None:
    async def scenario(predictor: Predictor) -> None:
        impatient = asyncio.create_task(learn(predictor, digits, 0, 1))
        patient = asyncio.create_task(learn(predictor, digits, 1, 2))
        await asyncio.sleep(0)
        impatient.cancel()
        await asyncio.wait([impatient])
        await patient
        await learn(predictor, digits, 2, 3)
        assert memory.size in {2, 3}

    run(base_of(digits), memory, scenario)


def test_the_request_with_an_index_out_of_range_fails_alone(lookup: Path, tmp_path: Path) -> None:
    memory = ResidualMemory.open(
        tmp_path / "lookup", fitted=None, shape=MemoryShape(2, 2, "regression")
    )

    def rows(*indexes: int) -> Rows:
        return Rows({"index": np.array(indexes), "factor": np.ones((len(indexes), 1), np.float32)})

    async def scenario(predictor: Predictor) -> None:
        good, bad, other = await asyncio.gather(
            predictor.predict(rows(1)),
            predictor.predict(rows(0, 9)),
            predictor.predict(rows(2, 3)),
            return_exceptions=True,
        )
        assert isinstance(bad, InvalidInput)
        assert not isinstance(good, BaseException)
        assert not isinstance(other, BaseException)
        assert good.base.tolist() == [[-2, -3]]
        assert other.base.tolist() == [[-4, -5], [-6, -7]]

    run(BaseModel(lookup, inputs=LOOKUP_SPECS), memory, scenario, task="regression")
    memory.close()


def test_a_score_that_overflows_is_refused_and_the_others_are_answered(
    lookup: Path, tmp_path: Path
) -> None:
    """Base and correction are finite, their sum is not: it was infinity, which JSON has as null."""
    memory = ResidualMemory.open(
        tmp_path / "lookup", fitted=None, shape=MemoryShape(2, 2, "regression")
    )
    memory.append(
        Memories(
            ids=["far"],
            inputs=[b"x"],
            targets=np.zeros((1, 2), np.float32),
            embeddings=np.zeros((1, 2), np.float32),
            residuals=np.full((1, 2), -3e38, np.float32),
            weights=np.ones(1),
            source=None,
        )
    ).result()

    def rows(*factors: float) -> Rows:
        index = np.ones(len(factors), np.int64)
        return Rows({"index": index, "factor": np.array(factors, np.float32)[:, None]})

    async def scenario(predictor: Predictor) -> None:
        bad, good = await asyncio.gather(
            predictor.predict(rows(1.0, 1e38)), predictor.predict(rows(1.0)), return_exceptions=True
        )
        assert isinstance(bad, InvalidInput)
        assert "row 1 is not finite" in bad.message
        assert not isinstance(good, BaseException)
        assert np.isfinite(good.scores).all()

    run(BaseModel(lookup, inputs=LOOKUP_SPECS), memory, scenario, task="regression")
    memory.close()


@pytest.mark.parametrize("shape", [(1, 3), (40, 300)])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_number_that_is_not_finite_is_found(shape: tuple[int, int], value: float) -> None:
    """In small arrays and in large ones, and huge numbers are none."""
    huge = np.full(shape, 3e38, np.float32)
    assert _not_finite(huge, huge).size == 0
    huge[-1, 1] = value
    assert _not_finite(np.zeros(shape, np.float32), huge).tolist() == [shape[0] - 1]


@pytest.mark.parametrize("max_batch_rows", [2, 256])
def test_a_row_without_a_finite_answer_fails_its_own_request(
    roots: Path, tmp_path: Path, max_batch_rows: int
) -> None:
    memory = ResidualMemory.open(
        tmp_path / "roots", fitted=None, shape=MemoryShape(1, 1, "regression")
    )
    watcher = Watcher()

    def rows(*means: float) -> Rows:
        return Rows({"x": np.array(means, np.float32)[:, None]})

    async def scenario(predictor: Predictor) -> None:
        good, bad, other = await asyncio.gather(
            predictor.predict(rows(4.0)),
            predictor.predict(rows(1.0, 1.0, 1.0, -1.0, 1.0)),
            predictor.predict(rows(9.0, 16.0)),
            return_exceptions=True,
        )
        assert isinstance(bad, InvalidInput)
        assert "row 3 is not finite" in bad.message
        assert not isinstance(good, BaseException)
        assert not isinstance(other, BaseException)
        assert good.scores.tolist() == [[2.0]]
        assert other.scores.tolist() == [[3.0], [4.0]]
        with pytest.raises(InvalidInput):
            await predictor.memorize(
                rows(-1.0),
                targets=np.zeros((1, 1), np.float32),
                ids=[None],
                weights=np.ones(1),
                source=None,
            )
        assert memory.size == 0
        await predictor.memorize(
            rows(4.0),
            targets=np.array([[5.0]], np.float32),
            ids=[None],
            weights=np.ones(1),
            source=None,
        )
        predictions = await predictor.predict(rows(4.0))
        assert predictions.base.tolist() == [[2.0]]
        assert predictions.scores.tolist() == [[5.0]]

    run(
        BaseModel(roots, inputs=ROOTS_SPECS),
        memory,
        scenario,
        task="regression",
        limits=Limits(max_batch_rows=max_batch_rows),
        observer=watcher,
    )
    memory.close()
    assert watcher.learned == [OnlineScores(1, 9.0, 9.0, 0, 0)]


def test_rows_of_different_length_never_meet_in_one_batch(roots: Path, tmp_path: Path) -> None:
    memory = ResidualMemory.open(
        tmp_path / "roots", fitted=None, shape=MemoryShape(1, 1, "regression")
    )

    async def scenario(predictor: Predictor) -> None:
        answers = await asyncio.gather(
            *(
                predictor.predict(Rows({"x": np.full((1, 1 + length % 3), 4.0, np.float32)}))
                for length in range(20)
            )
        )
        assert {float(answer.scores[0, 0]) for answer in answers} == {2.0}

    run(BaseModel(roots, inputs=ROOTS_SPECS), memory, scenario, task="regression")
    memory.close()


def test_a_closed_predictor_is_not_ready(digits: Digits, memory: ResidualMemory) -> None:
    async def scenario(predictor: Predictor) -> None:
        await predictor.close()
        with pytest.raises(NotReady):
            await predictor.predict(rows_of(digits, 0, 1))

    run(base_of(digits), memory, scenario)
