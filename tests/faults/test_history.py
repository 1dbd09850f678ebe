"""The judge of the kill tests finds what it is there to find."""

import pytest

from tests.faults.history import FITTED, History, Lesson, Line, State, nameless_source

TWO = Line("begin", "a", lesson=Lesson("a/1", {"x": 2, "y": 1}))
BEFORE: dict[str, State] = {"fit-0": FITTED, "x": (1, "a/0")}
AFTER: dict[str, State] = {"fit-0": FITTED, "x": (2, "a/1"), "y": (1, "a/1")}


@pytest.fixture
def history() -> History:
    """A memory of the bundle, and `x`, which was acknowledged."""
    history = History(1)
    history.take(Line("begin", "a", lesson=Lesson("a/0", {"x": 1})))
    history.take(Line("done", "a", ids=["x"]))
    history.settle(BEFORE)
    return history


def test_what_was_acknowledged_must_be_there(history: History) -> None:
    for lost in ({"fit-0": FITTED}, {"x": (1, "a/0")}, BEFORE | {"x": (1, "a/1")}):
        with pytest.raises(AssertionError, match="acknowledged, and not so"):
            history.settle(lost)
    history.take(TWO)
    history.take(Line("done", "a", ids=["x", "y"]))
    with pytest.raises(AssertionError, match="acknowledged, and not so"):
        history.settle(BEFORE)
    history.settle(AFTER)


@pytest.mark.parametrize("forgetting", [{"forget": "x"}, {"forget_source": "a/0"}])
def test_what_was_forgotten_must_not_come_back(
    history: History, forgetting: dict[str, str]
) -> None:
    history.take(Line("begin", "a", **forgetting))  # type: ignore[arg-type]
    history.take(Line("done", "a"))
    with pytest.raises(AssertionError, match="forgotten or never taught, and there"):
        history.settle(BEFORE)
    history.settle({"fit-0": FITTED})


def test_what_was_refused_must_not_have_happened(history: History) -> None:
    history.take(TWO)
    history.take(Line("refused", "a"))
    with pytest.raises(AssertionError, match="acknowledged, and not so"):
        history.settle(AFTER)
    history.settle(BEFORE)


@pytest.mark.parametrize("found", [BEFORE, AFTER])
@pytest.mark.parametrize("asked_at_once", [False, True])
def test_without_a_reply_all_of_it_has_happened_or_nothing(
    history: History, found: dict[str, State], asked_at_once: bool
) -> None:
    history.take(TWO)
    if asked_at_once:
        history.take(Line("lost", "a", found=found))
    history.settle(found)
    assert history.states == found


@pytest.mark.parametrize("half", [BEFORE | {"x": (2, "a/1")}, BEFORE | {"y": (1, "a/1")}])
def test_half_a_request_is_found(history: History, half: dict[str, State]) -> None:
    history.take(TWO)
    with pytest.raises(AssertionError, match="half a request"):
        history.settle(half)


def test_half_a_request_without_ids_is_found(history: History) -> None:
    source = nameless_source("a", "1")
    request = Line("begin", "a", lesson=Lesson(source, nameless=2))
    history.take(request)
    with pytest.raises(AssertionError, match="half a request"):
        history.settle(BEFORE | {"made": (2, source)})
    whole = BEFORE | {"other": (2, source), "made": (1, source)}
    history.settle(whole)
    assert history.states == whole
    assert Line.load(request.dump()) == request
