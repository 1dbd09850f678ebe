"""What is refused costs time linear in its size, and nothing stays of it: every route, every shape.

`python -m benchmarks.speed.refusals --full` measures the same with bodies of up to 60 MB, and the
resident memory of a server; RESMEM_TEST_REFUSED_BYTES makes the largest body of this test larger.
"""

import gc
import os
from collections.abc import Iterator

import pytest
from resmem_service.api.routes import ROUTES, template_of
from resmem_service.settings import load

from benchmarks.speed.refusals import App, expandable, model_of
from benchmarks.speed.refused_requests import Refused, catalogue
from tests.conftest import FittedModel

LARGE = int(os.environ.get("RESMEM_TEST_REFUSED_BYTES", 2**20))
SMALL = LARGE // 8
FLOOR_S = 0.1
"""CPU time below which noise is most of it."""
MOST_S_PER_MB = 0.5
"""Ten times what the dearest takes on the machine that this was written on."""
MOST_LEFT = 200_000
MOST_ANSWER = 5000


@pytest.fixture(scope="module")
def app(digits: FittedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """The service, without a socket."""
    settings = load(store=digits.store, state_dir=tmp_path_factory.mktemp("s"), cors_origins="")
    with App(settings) as app:
        yield app


@pytest.fixture(scope="module")
def requests(app: App) -> list[Refused]:
    """Every shape of this model."""
    return catalogue(model_of(app))


def size_of(request: Refused, size: int) -> int:
    """Paths and queries come in heads, whose length the server bounds."""
    return size if request.lengthen is None else size // 64


def test_every_route_is_there(requests: list[Refused]) -> None:
    reached = {template_of(each.path) for each in requests if each.lengthen is None}
    assert reached >= {route.path for route in ROUTES}
    bodies = {(each.method, template_of(each.path)) for each in requests}
    assert bodies >= {(r.method, r.path) for r in ROUTES if r.method == "POST"} - {
        ("POST", "/admin/reload")  # which reads no body
    }


@pytest.mark.timeout(600)
def test_all_are_refused_in_linear_time_and_short_words(app: App, requests: list[Refused]) -> None:
    """Of two sizes the larger one takes no more than in proportion, four times that for noise."""
    wrong = []
    for request in requests:
        small = app.measure(request, size_of(request, SMALL))
        large = app.measure(request, size_of(request, LARGE))
        if small.status < 400 or large.status < 400 or max(small.status, large.status) >= 500:
            wrong.append(f"{request.name}: {small.status}, {large.status}")
        ratio = large.seconds / max(small.seconds, FLOOR_S / 8)
        if large.seconds > FLOOR_S and ratio > 4 * LARGE / SMALL:
            wrong.append(f"{request.name}: {small.seconds:.3f} s, then {large.seconds:.3f} s")
        if large.seconds > FLOOR_S + MOST_S_PER_MB * LARGE / 2**20:
            wrong.append(f"{request.name}: {large.seconds:.3f} s")
        if max(small.answer, large.answer) > MOST_ANSWER:
            wrong.append(f"{request.name}: an answer of {large.answer} bytes")
    assert not wrong, "\n".join(wrong)


@pytest.mark.timeout(600)
def test_nothing_stays_of_what_is_refused(app: App, requests: list[Refused]) -> None:
    """Reference counts alone free it: an exception kept in a cycle would keep body and frames."""
    wrong = []
    gc.collect()
    gc.disable()
    try:
        for request in [*requests, *expandable(requests)[::10]]:
            app.measure(request, 100)  # what is made once is made now
            cost = app.measure(request, size_of(request, LARGE), memory=True)
            if cost.retained > MOST_LEFT:
                wrong.append(f"{request.name}: {cost.retained} bytes of {cost.size} stay")
    finally:
        gc.enable()
    assert not wrong, "\n".join(wrong)
    assert app.app.lifecycle.in_flight() == 0
