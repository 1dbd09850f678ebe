"""Log lines, for machines and for people."""

import json
import logging
from collections.abc import Iterator

import pytest

from service.telemetry.logs import configure, fields


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.getLogger("uvicorn.access").disabled = False


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    logging.getLogger("a.b").info("it %s", "works", extra=fields(rows=3, name='q"ö'))
    (line,) = capsys.readouterr().err.splitlines()
    found = json.loads(line)
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "info",
        "logger": "a.b",
        "message": "it works",
        "rows": 3,
        "name": 'q"ö',
    }


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "text")
    logging.getLogger("a").warning("it works", extra=fields(rows=3))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(" warning it works rows=3")


@pytest.mark.parametrize("form", ["json", "text"])
def test_tracebacks(capsys: pytest.CaptureFixture[str], form: str) -> None:
    configure("info", form)  # type: ignore[arg-type]
    try:
        raise ZeroDivisionError("why")
    except ZeroDivisionError:
        logging.getLogger("a").exception("it failed")
    text = capsys.readouterr().err
    assert "ZeroDivisionError: why" in text
    if form == "json":
        assert "Traceback" in json.loads(text)["exception"]


def test_a_value_that_json_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    logging.getLogger("a").info("%s", "x", extra={"resmem_fields": {"path": object}})
    assert "class" in json.loads(capsys.readouterr().err)["path"]


def test_the_level_counts(capsys: pytest.CaptureFixture[str]) -> None:
    configure("warning", "text")
    logging.getLogger("a").info("unheard")
    assert capsys.readouterr().err == ""


def test_uvicorn_speaks_the_same_way_and_logs_no_requests(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure("info", "json")
    logging.getLogger("uvicorn.access").info("GET /")
    logging.getLogger("uvicorn.error").info("Started server process")
    logging.getLogger("uvicorn.error").error("trouble")
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["message"] == "trouble"


def test_a_worker_says_which_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json", worker=1)
    logging.getLogger("x").info("ready", extra=fields(seconds=2))
    line = json.loads(capsys.readouterr().err)
    assert (line["worker"], line["seconds"]) == (1, 2)
    configure("info", "text", worker=1)
    logging.getLogger("x").info("ready", extra=fields(seconds=2))
    assert capsys.readouterr().err.endswith("ready worker=1 seconds=2\n")
