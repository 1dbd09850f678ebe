"""`resmem rebase`: what it says, and what it says when it cannot."""

from pathlib import Path

import pytest
from resmem_service.cli import main

from tests.conftest import TwoVersions
from tests.migrate.states import opened, stored, teach


@pytest.fixture
def options(digits_twice: TwoVersions, tmp_path: Path) -> list[str]:
    """Version 1 was taught 20 digits, and two memories of its bundle were forgotten."""
    two = digits_twice
    ids = [*(f"id-{row}" for row in range(19)), "fit-3"]
    teach(two.old, tmp_path, two.inputs[:20], two.targets[:20], ids=ids)
    memory = opened(two.old, tmp_path)
    memory.forget("fit-8")
    memory.close()
    return ["--store", str(two.store), "--state-dir", str(tmp_path)]


def test_what_it_says(
    digits_twice: TwoVersions,
    options: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["rebase", *options]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "digits/1 -> digits/2: 20 memories taken over, 20 of them in this run",
        "1 have ids of the form fit-N, which a memory of the new bundle has too: it stays, and "
        "votes beside them",
        "2 memories of the bundle (fit-N) that were forgotten in version 1 are not forgotten in "
        "version 2, which was fitted anew: look there for what is still wrong",
        "what version 1 learns or forgets from now on is taken over by the same command, given "
        "once more after the switch",
        str(tmp_path / "digits/2"),
    ]
    assert err == ""
    assert len(stored(digits_twice.new, tmp_path)) == 20


def test_what_it_says_of_what_did_not_come(
    digits_twice: TwoVersions,
    options: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    two = digits_twice
    teach(two.new, tmp_path, two.inputs[:1], two.targets[:1], ids=["id-4"])
    assert main(["rebase", *options, "--model", "digits/2", "--from", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "1 stay as version 2 has them, under the same ids"
    memory = opened(two.old, tmp_path)
    memory.forget("id-5")
    memory.close()
    assert main(["rebase", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("18 memories taken over, 0 of them in this run")
    assert lines[2] == "1 forgotten, since version 1 no longer has them"


def test_nothing_to_take_over(
    digits_twice: TwoVersions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--store", str(digits_twice.store), "--state-dir", str(tmp_path)]
    for more in ([], ["--model", "digits/1"]):
        assert main(["rebase", *options, *more]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert "no memories of a version before" in err
    assert main(["rebase", *options, "--from", "1"]) == 2
    assert "version 1 was never taught" in capsys.readouterr().err
    assert main(["rebase", *options, "--from", "5"]) == 2
    assert "has no version 5" in capsys.readouterr().err


def test_control_c_says_how_to_go_on(
    options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("resmem_service.migrate.embedder.Embedder.embed", interrupted)
    assert main(["rebase", *options]) == 130
    assert capsys.readouterr().err == "stopped; the same command goes on from here\n"
    monkeypatch.undo()
    assert main(["rebase", *options]) == 0


@pytest.mark.parametrize("value", ["0", "-3", "many"])
def test_batches_have_rows(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["rebase", "--batch-rows", value])
    assert "--batch-rows" in capsys.readouterr().err
