import sys

import pytest
from resmem_service.progress import Logged, Silent, Terminal, progress_for


def test_silence() -> None:
    silent = Silent()
    silent.say("nothing")
    with silent.bar("rows", 3) as advance:
        advance(3)


def test_lines_go_to_standard_error_and_bars_only_to_terminals(
    capsys: pytest.CaptureFixture[str],
) -> None:
    terminal = Terminal()
    terminal.say("a line")
    with terminal.bar("rows", 3) as advance:
        advance(3)
    assert capsys.readouterr() == ("", "a line\n")


def test_a_terminal_shows_the_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Terminal().bar("base predictions", 300) as advance:
        advance(300)
    assert "base predictions: 100%" in capsys.readouterr().err


def test_without_tqdm_there_is_no_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resmem_service.progress.installed", lambda name: name != "tqdm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Terminal().bar("rows", 3) as advance:
        advance(3)
    assert capsys.readouterr().err == ""


def test_without_a_terminal_there_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([0.0, 9.0, 10.0, 11.0])
    monkeypatch.setattr("resmem_service.progress.time.monotonic", lambda: next(seconds))
    with Terminal().bar("memories", 300) as advance:
        for _ in range(3):
            advance(100)
    assert capsys.readouterr().err == "memories: 200 of 300 rows\n"


def test_what_is_said_stands_above_the_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    terminal = Terminal()
    with terminal.bar("memories", 3) as advance:
        terminal.say("left out 'id-7'")
        advance(3)
    terminal.say("done")
    lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
    assert "left out 'id-7'" in lines
    assert lines[-1] == "done"


def test_a_log_of_objects_has_no_other_lines(
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = iter([0.0, 11.0])
    monkeypatch.setattr("resmem_service.progress.time.monotonic", lambda: next(seconds))
    progress = progress_for("json")
    assert isinstance(progress, Logged)
    progress.say("left out 'x'")
    with progress.bar("memories", 300) as advance:
        advance(20)
    assert caplog.messages == ["left out 'x'", "memories: 20 of 300 rows"]
    assert capsys.readouterr().err == ""
    assert isinstance(progress_for("text"), Terminal)


def test_what_a_file_says_commands_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().say("left out \x1b[2J\nforged")
    assert capsys.readouterr().err == "left out \\x1b[2J\\nforged\n"
