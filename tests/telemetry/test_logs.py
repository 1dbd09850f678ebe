"""Log lines, for machines and for people."""

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import orjson
import pytest
from resmem_service.telemetry.logs import LogFormat, configure, fields


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


EVIL = 'x\n2026-01-01T00:00:00.000Z error   forged\r\x1b[2J\u2028\x85 \udc80 "é" a=b'
"""A source, an id or a path that a client chose."""


def test_what_clients_say_cannot_forge_a_line_of_text(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "text")
    logging.getLogger("a").warning("source %s", EVIL, extra=fields(source=EVIL, empty=""))
    try:
        raise ValueError(EVIL)
    except ValueError:
        logging.getLogger("a").exception("it failed")
    first, second, *trace = capsys.readouterr().err.splitlines()
    assert first.endswith(
        r"\udc80 " + r'"é" a=b source="x\n2026-01-01T00:00:00.000Z error   forged\r\x1b[2J'
        r'\u2028\x85 \udc80 \"é\" a=b" empty=""'
    )
    assert second.endswith("it failed")
    assert trace
    assert all(line.startswith("    ") for line in trace)
    assert not any("\x1b" in line for line in (first, second, *trace))


def test_what_clients_say_stays_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    logging.getLogger("a").warning("source %s", EVIL, extra=fields(source=EVIL))
    try:
        raise ValueError(EVIL)
    except ValueError:
        logging.getLogger("a").exception("it failed")
    text = capsys.readouterr().err
    assert text.isascii()
    first, second = (orjson.loads(line) for line in text.splitlines())
    whole = EVIL.replace("\udc80", "\\udc80")
    assert (first["message"], first["source"]) == (f"source {whole}", whole)
    assert whole in second["exception"]


def test_numbers_that_json_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    logging.getLogger("a").info(
        "x", extra=fields(nan=float("nan"), endless=float("inf"), large=2**70, none=None)
    )
    found = json.loads(capsys.readouterr().err, parse_constant=pytest.fail)
    assert (found["nan"], found["endless"], found["none"]) == (None, None, None)
    assert found["large"] == 2**70


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_line_that_cannot_be_formatted_is_a_line_still(
    capsys: pytest.CaptureFixture[str], form: LogFormat
) -> None:
    configure("info", form)
    logging.getLogger("a").info("%d rows", "many")
    (line,) = capsys.readouterr().err.splitlines()
    assert "%d rows ('many',)" in line


def test_the_stack_where_the_event_was_logged(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    logging.getLogger("a").info("here", stack_info=True)
    assert "test_the_stack" in json.loads(capsys.readouterr().err)["exception"]


@pytest.mark.parametrize("stderr", [None, io.StringIO()])
def test_nobody_to_read_is_no_error(
    stderr: io.StringIO | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure("info", "json")
    if stderr is not None:
        stderr.close()
    monkeypatch.setattr(sys, "stderr", stderr)
    logging.getLogger("a").info("unheard")


REST = {
    "an exception": ("raise ValueError('a\\nb')", "the process ends with an exception"),
    "a thread": (
        "import threading\ndef fail():\n    raise ValueError('a\\nb')\n"
        "thread = threading.Thread(target=fail); thread.start(); thread.join()",
        "a thread ended with an exception",
    ),
    "a finalizer": (
        "class Failing:\n    def __del__(self):\n        raise ValueError('a\\nb')\nFailing()",
        "exception",
    ),
    "a task": (
        "import asyncio, gc\nasync def fail():\n    raise ValueError('a\\nb')\n"
        "async def main():\n"
        "    task = asyncio.create_task(fail()); await asyncio.sleep(0); del task; gc.collect()\n"
        "asyncio.run(main())",
        "Task exception was never retrieved",
    ),
    "a warning": ("import warnings\nwarnings.warn('a\\nb')", "UserWarning: a\nb"),
}


@pytest.mark.parametrize("case", REST)
@pytest.mark.parametrize("form", ["json", "text"])
def test_what_python_itself_would_write_is_logged(case: str, form: str) -> None:
    code, words = REST[case]
    begin = f"from resmem_service.telemetry import logs\nlogs.configure('info', '{form}')\n"
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", f"{begin}logs.catch_the_rest()\n{code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (1 if case == "an exception" else 0)
    if form == "json":
        (line,) = (json.loads(line) for line in done.stderr.splitlines())
        assert words in line["message"]
        assert case == "a warning" or "ValueError: a\nb" in line["exception"]
    else:
        first, *rest = done.stderr.splitlines()
        assert words.replace("\n", "\\n") in first
        assert all(line.startswith("    ") for line in rest)


def test_an_interrupt_is_no_trouble() -> None:
    code = (
        "from resmem_service.telemetry import logs\nlogs.configure('info', 'json')\n"
        "logs.catch_the_rest()\nraise KeyboardInterrupt"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.stderr == b""
