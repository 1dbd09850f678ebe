"""`inspect`, `verify`, `repair`, `compact`, `backup`, `restore`, `export`, `import`: as typed."""

import json
from pathlib import Path

import pytest
from resmem_service.cli import main
from resmem_service.memory.segments.folders import StateFolders

from tests.conftest import FittedModel
from tests.maintenance.examples import flip, teach
from tests.memory.examples import execute


@pytest.fixture(scope="module")
def lines(digits: FittedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("lines") / "in.jsonl"
    rows = zip(digits.inputs[:80].astype(float).tolist(), digits.targets[:80], strict=True)
    file.write_text(
        "".join(
            json.dumps({"id": f"d{n}", "inputs": row, "target": int(target), "source": "desk"})
            + "\n"
            for n, (row, target) in enumerate(rows)
        )
    )
    return file


@pytest.fixture
def place(digits: FittedModel, tmp_path: Path) -> list[str]:
    return ["--store", str(digits.store), "--state-dir", str(tmp_path / "states")]


def test_a_state_from_its_first_memory_to_its_restoration(
    place: list[str], lines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(command: str, *options: str) -> str:
        assert main([command, *place, *options]) == 0
        return capsys.readouterr().out

    assert run("verify", "--bundle-only").endswith("no faults\n")
    out = run("import", str(lines))
    assert out == (
        "80 memories created, 0 replaced, 0 there already, 0 skipped; the base model ran for 80\n"
    )
    assert "80 memories: 0 sealed, 80 growing" in run("inspect")
    found = json.loads(run("inspect", "--json"))
    assert found["state"]["sources"][0]["source"] == "desk"
    assert found["bundle"]["memories"] == 900
    assert run("compact").startswith("removed 0 forgotten memories from segments\njournal ")
    assert run("repair") == "nothing to mend\n"
    saved = str(tmp_path / "saved")
    assert run("backup", "--to", saved).startswith("80 memories, revision 80, ")
    out = run("verify", "--backup", saved)
    assert out.splitlines()[0].startswith("ok     backup")
    assert "80 memories" in run("export", "--to", str(tmp_path / "out.jsonl"))
    assert "80 memories" in run("export", "--to", str(tmp_path / "out.parquet"), "--vectors")
    assert "0 memories created" in run("import", str(tmp_path / "out.parquet"))
    out = run("restore", "--from", saved, "--force")
    assert out.startswith(f"moved the old state to {tmp_path / 'states/digits/1.before-'}")
    assert str(tmp_path / "states/digits/1") in out.splitlines()[-1]
    out = run("verify")
    assert all(line.startswith("ok ") for line in out.splitlines()[:-1])


def test_faults_are_two_lines_each_and_status_1(
    digits: FittedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taught = teach(digits, tmp_path / "states")
    flip(taught.segment(1) / "graph.hnsw", 0.5)
    assert main(["verify", *taught.options()]) == 1
    out = capsys.readouterr().out.splitlines()
    at = next(n for n, line in enumerate(out) if line.startswith("FAULT"))
    assert out[at].split(maxsplit=3)[1:3] == ["segment", "00000001"]
    assert "graph.hnsw differs from its checksum" in out[at]
    assert "what is safe" in out[at + 1]
    assert "resmem repair" in out[at + 1]
    assert out[-1] == "1 fault"
    assert main(["backup", *taught.options(), "--to", str(tmp_path / "saved")]) == 1
    assert "left out segment 00000001" in capsys.readouterr().out
    assert main(["restore", *taught.options(), "--from", str(tmp_path / "saved"), "--force"]) == 0
    assert "built segment 00000003 anew, 59 rows" in capsys.readouterr().out
    flip(taught.segment(2) / "weights.npy", 0.9)
    assert main(["repair", *taught.options()]) == 0
    assert capsys.readouterr().out == "built segment 00000004 anew, 49 rows\n"
    assert main(["verify", *taught.options()]) == 0


def test_compacting_takes_the_forgotten_from_the_disk(
    digits: FittedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taught = teach(digits, tmp_path / "states")
    assert main(["compact", *taught.options()]) == 0
    assert capsys.readouterr().out.startswith("removed 2 forgotten memories from segments\n")
    needle = digits.inputs[5].tobytes()
    for path in taught.folders.root.rglob("*"):
        assert path.is_dir() or needle not in path.read_bytes(), path
    flip(taught.folders.segments / "00000003" / "graph.hnsw", 24)
    # What is damaged may hold forgotten memories too: it is built anew from the journal.
    assert main(["compact", *taught.options()]) == 0
    assert main(["verify", *taught.options()]) == 0


def test_a_fault_that_is_left_is_status_1(
    digits: FittedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taught = teach(digits, tmp_path / "states")
    execute(taught.folders.journal, "UPDATE memories SET weight = 9 WHERE id = 'digit-140'")
    assert main(["repair", *taught.options()]) == 1
    assert capsys.readouterr().out.startswith("left: memory ")
    assert main(["repair", *taught.options(), "--forget-damaged"]) == 0
    assert capsys.readouterr().out.startswith("forgot ")


def test_a_damaged_manifest_is_a_fault_of_the_bundle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "store" / "digits" / "1"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{")
    assert main(["verify", "--store", str(tmp_path / "store")]) == 1
    out = capsys.readouterr().out
    assert out.startswith("FAULT  bundle")
    assert "manifest.json" in out


@pytest.mark.parametrize("command", ["inspect", "verify", "repair", "compact"])
def test_no_bundle_is_one_line(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--store", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "holds no model yet" in line


@pytest.mark.parametrize("command", ["repair", "compact"])
def test_nothing_to_mend_or_compact_is_said(
    command: str, place: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, *place]) == 2
    assert "nothing was memorized" in capsys.readouterr().err
    assert not (tmp_path / "states").exists()


@pytest.mark.parametrize("command", ["export", "import", "backup", "restore"])
def test_where_to_is_asked_for(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command])
    assert ended.value.code == 2
    assert "required" in capsys.readouterr().err


def test_the_environment_names_the_place(
    digits: FittedModel,
    lines: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RESMEM_STORE", str(digits.store))
    monkeypatch.setenv("RESMEM_MODEL", "digits/1")
    monkeypatch.setenv("RESMEM_STATE_DIR", str(tmp_path / "mine"))
    assert main(["import", str(lines)]) == 0
    assert capsys.readouterr().out.startswith("80 memories created")
    assert StateFolders(tmp_path / "mine" / "digits" / "1").journal.exists()


@pytest.mark.parametrize(
    "command",
    [
        ["inspect"],
        ["verify"],
        ["repair"],
        ["compact"],
        ["backup", "--to", "saved"],
        ["export", "--to", "out.jsonl"],
    ],
    ids=lambda command: command[0],
)
def test_a_state_that_is_not_there_is_not_well(
    command: list[str],
    place: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*command, *place]) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert f"{tmp_path}/states/digits/1 is not there" in line
    assert "--state-dir" in line
    # What there is of the bundle is told all the same.
    assert ("digits/1" in out) == (command[0] in {"inspect", "verify"})
    assert "no faults" not in out
    assert list(tmp_path.iterdir()) == []


def test_sources_command_no_terminal(
    digits: FittedModel, place: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = {"id": "\x1b[2J", "inputs": digits.inputs[0].astype(float).tolist(), "target": 1}
    (tmp_path / "in.jsonl").write_text(json.dumps(entry | {"source": "desk\n\x1b[31mred"}) + "\n")
    assert main(["import", *place, str(tmp_path / "in.jsonl")]) == 0
    assert main(["inspect", *place]) == 0
    out = capsys.readouterr().out
    assert "desk\\n\\x1b[31mred" in out
    assert "\x1b" not in out
