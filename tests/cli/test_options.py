"""Every command takes its place and its options from the settings: file, environment, flags."""

import json
from argparse import ArgumentParser
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from resmem_service.cli import _COMMANDS, main
from resmem_service.memory.options import MemoryOptions
from resmem_service.settings import Settings

from tests.conftest import FittedModel, TwoVersions
from tests.maintenance.examples import teach

GIVEN = {
    "fit": ["--model", "base.onnx", "--data", "rows.npz", "--name", "x"],
    "serve": [],
    "eval": ["--data", "rows.npz"],
    "bench": [],
    "rebase": [],
    "use": ["digits/1"],
    "inspect": [],
    "verify": [],
    "repair": [],
    "compact": [],
    "backup": ["--to", "saved"],
    "restore": ["--from", "saved"],
    "export": ["--to", "out.jsonl"],
    "import": ["in.jsonl"],
}
"""What each command asks for beside settings."""

Run = Callable[..., Settings]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"RESMEM_{name.upper()}", raising=False)


def declared(command: str) -> list[str]:
    module, declare, _ = _COMMANDS[command]
    parser = ArgumentParser()
    getattr(import_module(f"resmem_service.cli.{module}"), declare)(parser)
    return sorted(parser.get_default("declared_settings"))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command as typed and returns the settings that it gets, in place of its work."""

    def run(command: str, *flags: str) -> Settings:
        module, declare, _ = _COMMANDS[command]
        loaded = import_module(f"resmem_service.cli.{module}")
        original: Callable[[ArgumentParser], None] = getattr(loaded, declare)
        seen: list[Settings] = []

        def spy(_: object, settings: Settings) -> int:
            seen.append(settings)
            return 0

        def declaring(parser: ArgumentParser) -> None:
            original(parser)
            parser.set_defaults(run=spy)

        monkeypatch.setattr(loaded, declare, declaring)
        try:
            assert main([command, *GIVEN[command], *flags]) == 0
        finally:
            monkeypatch.setattr(loaded, declare, original)
        return seen[0]

    return run


def test_the_settings_that_commands_have_flags_for() -> None:
    """The public surface: a change to it is a change to this list."""
    everywhere = {"config", "log_level", "log_format"}
    place, model = {"store", "model", "state_dir"}, {"provider", "threads"}
    memory = {
        "growing_bytes", "max_growing_bytes", "max_segment_rows", "capacity_rows",
        "capacity_bytes", "max_age_s", "busy_ms",
    }  # fmt: skip
    expected: dict[str, set[str]] = {
        "fit": {"store"} | model,
        "serve": set(Settings.model_fields),
        "eval": {"store", "model"} | model,
        "bench": set(),
        "rebase": place | model | memory,
        "use": {"store"},
        "compact": place | memory,
        "import": place | model | memory | {"max_weight"},
    }
    for command in _COMMANDS:
        assert set(declared(command)) == expected.get(command, place) | everywhere, command


@pytest.mark.parametrize("command", _COMMANDS)
def test_a_command_reads_the_file_the_environment_and_its_flags(
    command: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values: dict[str, Any] = {
        name: value
        for name, value in {
            "store": ("a", "b", "c"),
            "model": ("a", "b", "c"),
            "state_dir": ("a", "b", "c"),
            "threads": (1, 2, 3),
            "busy_ms": (1, 2, 3),
            "growing_bytes": (70_000, 80_000, 90_000),
            "log_level": ("error", "debug", "info"),
        }.items()
        if name in declared(command)
    }
    assert "log_level" in values
    lines = [f"{name} = {json.dumps(value[0])}" for name, value in values.items()]
    (tmp_path / "resmem.toml").write_text("\n".join(lines))

    def got(*flags: str) -> dict[str, Any]:
        settings = run(command, *flags)
        return {name: type(values[name][0])(getattr(settings, name)) for name in values}

    assert got("--config", "resmem.toml") == {name: value[0] for name, value in values.items()}
    monkeypatch.setenv("RESMEM_CONFIG", "resmem.toml")
    assert got() == {name: value[0] for name, value in values.items()}
    for name, value in values.items():
        monkeypatch.setenv(f"RESMEM_{name.upper()}", str(value[1]))
    assert got() == {name: value[1] for name, value in values.items()}
    flags = [
        word
        for name, value in values.items()
        for word in (f"--{name.replace('_', '-')}", str(value[2]))
    ]
    assert got(*flags) == {name: value[2] for name, value in values.items()}


@pytest.mark.parametrize("command", _COMMANDS)
def test_a_wrong_setting_ends_every_command_in_one_line(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [command, *GIVEN[command]]
    assert main([*arguments, "--config", "nowhere.toml"]) == 2
    assert main([*arguments, "--log-level", "loud"]) == 2
    monkeypatch.setenv("RESMEM_LOG_LEVEL", "loud")
    assert main(arguments) == 2
    first, second, third = capsys.readouterr().err.splitlines()
    assert first.startswith("resmem: error: the settings file nowhere.toml cannot be read")
    assert second.startswith("resmem: error: --log-level: ")
    assert third.startswith("resmem: error: RESMEM_LOG_LEVEL: ")


def test_the_file_names_the_place(
    digits: FittedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What an operator has: all in one file, and nothing in the folder where commands run."""
    teach(digits, tmp_path / "volume")
    (tmp_path / "resmem.toml").write_text(
        f'store = "{digits.store}"\nstate_dir = "{tmp_path}/volume"\nmodel = "digits/1"\n'
    )
    config = ["--config", "resmem.toml"]
    assert main(["verify", *config]) == 0
    assert "segment 00000001" in capsys.readouterr().out
    assert main(["inspect", *config]) == 0
    assert f"{tmp_path}/volume/digits/1" in capsys.readouterr().out
    assert main(["export", *config, "--to", "out.jsonl"]) == 0
    exported = Path("out.jsonl").read_text()
    assert main(["backup", *config, "--to", "saved"]) == 0
    assert main(["restore", *config, "--from", "saved", "--force"]) == 0
    assert main(["repair", *config]) == 0
    assert main(["compact", *config]) == 0
    assert main(["import", *config, "out.jsonl"]) == 0
    assert main(["use", *config, "digits/1"]) == 0
    np.savez("rows.npz", x=digits.inputs[:50], y=digits.targets[:50])
    assert main(["eval", *config, "--data", "rows.npz"]) == 0
    assert exported
    assert not Path("state").exists()


@pytest.mark.parametrize("command", ["import", "compact"])
def test_the_memory_is_kept_as_the_settings_say(
    command: str, digits: FittedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teach(digits, tmp_path / "state")
    seen: list[MemoryOptions] = []

    def spy(*_: object, options: MemoryOptions, **__: object) -> None:
        seen.append(options)
        raise KeyboardInterrupt

    monkeypatch.setattr("resmem_service.memory.memory.ResidualMemory.open", spy)
    (tmp_path / "resmem.toml").write_text(
        f'store = "{digits.store}"\ngrowing_bytes = 70000\nmax_segment_rows = 7\nbusy_ms = 3\n'
        "capacity_rows = 30\n"
    )
    assert main([command, *GIVEN[command], "--config", "resmem.toml"]) == 130
    (options,) = seen
    assert (options.growing_bytes, options.max_segment_rows) == (70_000, 7)
    assert (options.busy_ms, options.retention.capacity_rows) == (3, 30)


def test_rebase_keeps_the_memory_as_the_settings_say(
    digits_twice: TwoVersions, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def spy(*_: object, **options: object) -> None:
        seen.update(options)
        raise KeyboardInterrupt

    monkeypatch.setattr("resmem_service.migrate.rebase.rebase", spy)
    flags = ["--store", str(digits_twice.store), "--growing-bytes", "70000", "--threads", "1"]
    assert main(["rebase", *flags, "--model", "digits/2", "--from", "1"]) == 130
    assert seen["options"].growing_bytes == 70_000
    assert seen["threads"] == 1


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ([], "127.0.0.1:8080"),
        (["host = '0.0.0.0'", "port = 1"], "127.0.0.1:1"),
        (["host = '::'", "port = 1"], "[::1]:1"),
        (["host = 'localhost'", "port = 1"], "localhost:1"),
    ],
)
def test_bench_finds_the_server_of_the_settings(
    settings: list[str], url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "resmem.toml").write_text("\n".join(settings))
    asked: list[str] = []

    def spy(url: str) -> None:
        asked.append(url)
        raise KeyboardInterrupt

    monkeypatch.setattr("resmem_service.load.target.Target.parse", spy)
    assert main(["bench", "--config", "resmem.toml"]) == 130
    assert main(["bench", "--config", "resmem.toml", "--url", "http://there:2"]) == 130
    assert asked == [f"http://{url}", "http://there:2"]
