import os
from argparse import ArgumentParser
from pathlib import Path
from typing import get_args

import pytest
from resmem_service.errors import InvalidSettings
from resmem_service.inference.base_model import Provider
from resmem_service.inference.batcher import Limits
from resmem_service.memory.journal.retention import Retention
from resmem_service.memory.options import MemoryOptions
from resmem_service.settings import Settings, add_flags, from_args, load, markdown_table

DOCS = Path(__file__).parent.parent / "docs" / "settings.md"

NAMES = [
    "config",
    "host",
    "port",
    "store",
    "model",
    "state_dir",
    "workers",
    "worker_timeout_s",
    "worker_start_timeout_s",
    "provider",
    "threads",
    "max_body_bytes",
    "max_head_bytes",
    "max_inflight_bytes",
    "max_connections",
    "head_timeout_s",
    "body_timeout_s",
    "min_body_bytes_per_s",
    "send_timeout_s",
    "keep_alive_s",
    "max_request_rows",
    "max_batch_rows",
    "max_queue_rows",
    "max_delay_ms",
    "max_inline_ms",
    "max_neighbours",
    "growing_bytes",
    "max_growing_bytes",
    "max_segment_rows",
    "capacity_rows",
    "capacity_bytes",
    "max_age_s",
    "max_weight",
    "busy_ms",
    "shutdown_delay_s",
    "drain_s",
    "predict_keys",
    "memorize_keys",
    "admin_keys",
    "cors_origins",
    "log_level",
    "log_format",
]


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(f"RESMEM_{name.upper()}", raising=False)


def from_line(*line: str) -> Settings:
    parser = ArgumentParser()
    parser.add_argument("--unrelated")
    add_flags(parser)
    return from_args(parser.parse_args(line))


def test_a_change_of_any_name_shows_here() -> None:
    assert list(Settings.model_fields) == NAMES


def test_the_docs_hold_the_table() -> None:
    assert DOCS.read_text(encoding="utf-8").endswith("\n\n" + markdown_table())


def test_every_setting_has_its_sentence() -> None:
    for field in Settings.model_fields.values():
        assert field.description is not None
        assert field.description.endswith(".")


def test_defaults_that_others_rely_on() -> None:
    settings = load()
    assert (settings.host, settings.port) == ("127.0.0.1", 8080)
    assert (settings.store, settings.state_dir) == (Path("model_store"), Path("state"))
    assert settings.model is None
    assert settings.workers == 1
    assert settings.max_delay_ms == 0
    assert settings.predict_keys == ()


def test_defaults_agree_with_those_of_the_rooms_they_are_for() -> None:
    settings = load()
    assert Limits() == Limits(
        settings.max_batch_rows,
        settings.max_queue_rows,
        settings.max_delay_ms,
        settings.max_inline_ms,
    )
    assert MemoryOptions() == MemoryOptions(
        growing_bytes=settings.growing_bytes,
        max_growing_bytes=settings.max_growing_bytes,
        max_segment_rows=settings.max_segment_rows,
        retention=Retention(settings.capacity_rows, settings.capacity_bytes, settings.max_age_s),
        busy_ms=settings.busy_ms,
    )
    assert get_args(Settings.model_fields["provider"].annotation) == get_args(Provider)


def test_a_flag_wins_over_the_environment_that_over_the_file_that_over_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "resmem.toml"
    file.write_text('port = 1\nhost = "file"\nmax_batch_rows = 16\nlog_level = "debug"\n')
    monkeypatch.setenv("RESMEM_CONFIG", str(file))
    monkeypatch.setenv("RESMEM_PORT", "2")
    monkeypatch.setenv("RESMEM_HOST", "environment")
    settings = from_line("--port", "3", "--unrelated", "x")
    assert settings.port == 3
    assert settings.host == "environment"
    assert settings.max_batch_rows == 16
    assert settings.log_level == "debug"
    assert settings.max_queue_rows == 8192


def test_the_file_named_by_a_flag_wins_over_the_one_named_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for port in (1, 2):
        (tmp_path / f"{port}.toml").write_text(f"port = {port}\n")
    monkeypatch.setenv("RESMEM_CONFIG", str(tmp_path / "1.toml"))
    assert load().port == 1
    assert from_line("--config", str(tmp_path / "2.toml")).port == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("prot = 1", "unknown keys: prot; it may have: admin_keys"),
        ('config = "other.toml"', "unknown keys: config"),
        ("[server]\nport = 1", "unknown keys: server"),
        ("port = ", "is not TOML"),
        ("port = 99999", "port: Input should be less than or equal to 65535"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "resmem.toml"
    file.write_text(content)
    with pytest.raises(InvalidSettings) as caught:
        load(config=file)
    assert words in caught.value.message


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="cannot be read"):
        load(config=tmp_path / "none.toml")
    file = tmp_path / "resmem.toml"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidSettings, match="not TOML"):
        load(config=file)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["--port", "70000"], "--port: Input should be less than or equal to 65535"),
        (["--port", "http"], "--port: Input should be a valid integer"),
        (["--provider", "rocm"], "--provider: Input should be 'auto', 'cpu', 'cuda' or 'tensorrt'"),
        (["--max-delay-ms", "inf"], "--max-delay-ms: "),
        (["--max-delay-ms", "-1"], "--max-delay-ms: "),
        (["--max-batch-rows", "0"], "--max-batch-rows: "),
        (["--workers", "0"], "--workers: Input should be greater than or equal to 1"),
        (["--workers", "257"], "--workers: Input should be less than or equal to 256"),
        (["--capacity-rows", "0"], "--capacity-rows: "),
        (["--capacity-bytes", "0"], "--capacity-bytes: "),
        (["--max-age-s", "0"], "--max-age-s: "),
        (["--max-age-s", "inf"], "--max-age-s: "),
        (["--max-segment-rows", "0"], "--max-segment-rows: "),
        (["--busy-ms", "-1"], "--busy-ms: "),
        (["--growing-bytes", "200000000"], "max_growing_bytes (268435456) is less than twice"),
        (
            ["--max-inflight-bytes", "70000"],
            "max_inflight_bytes (70000) is less than max_body_bytes",
        ),
        (["--max-queue-rows", "10"], "max_request_rows (4096) is more than max_queue_rows (10)"),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_its_flag(line: list[str], words: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        from_line(*line)
    assert words in caught.value.message


def test_a_wrong_value_of_the_environment_is_refused_by_its_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RESMEM_PORT", "http")
    with pytest.raises(InvalidSettings, match=r"^RESMEM_PORT: Input should be a valid integer"):
        load()
    monkeypatch.delenv("RESMEM_PORT")
    monkeypatch.setenv("resmem_port", "http")
    with pytest.raises(InvalidSettings, match=r"^RESMEM_PORT: "):
        load()


KUBERNETES = {
    "RESMEM_SERVICE_HOST": "10.0.0.1",
    "RESMEM_SERVICE_PORT": "8080",
    "RESMEM_SERVICE_PORT_HTTP": "8080",
    "RESMEM_PORT": "tcp://10.0.0.1:8080",
    "RESMEM_PORT_8080_TCP": "tcp://10.0.0.1:8080",
    "RESMEM_PORT_8080_TCP_PROTO": "tcp",
    "RESMEM_PORT_8080_TCP_PORT": "8080",
    "RESMEM_PORT_8080_TCP_ADDR": "10.0.0.1",
    "RESMEM_METRICS_SERVICE_HOST": "10.0.0.2",
    "RESMEM_METRICS_SERVICE_PORT": "9090",
    "RESMEM_METRICS_PORT": "tcp://10.0.0.2:9090",
    "RESMEM_METRICS_PORT_9090_TCP_ADDR": "10.0.0.2",
}
"""What Kubernetes sets in a pod beside Services called `resmem` and `resmem-metrics`."""


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in os.environ:
        if name.upper().startswith("RESMEM_"):
            monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize(
    "address", ["tcp://10.0.0.1:8080", "tcp://[fd00::1]:8080", "udp://10.0.0.1:53", "TCP://a:1"]
)
def test_the_address_of_a_kubernetes_service_is_no_port(
    address: str,
    tmp_path: Path,
    environment: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name, value in (KUBERNETES | {"RESMEM_PORT": address}).items():
        environment.setenv(name, value)
    assert load().port == 8080
    (warning,) = caplog.messages
    assert warning.startswith(f"RESMEM_PORT={address} is ignored")
    assert "port is 8080" in warning
    file = tmp_path / "resmem.toml"
    file.write_text("port = 9000\n")
    assert load(config=file).port == 9000
    assert from_line("--port", "9001").port == 9001


@pytest.mark.parametrize(
    "value", ["tcp://", "tcp://10.0.0.1", "http://10.0.0.1:8080", "10.0.0.1:8080", "80 tcp://a:1"]
)
def test_what_is_nearly_such_an_address_is_refused(
    value: str, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("RESMEM_PORT", value)
    with pytest.raises(InvalidSettings, match=r"^RESMEM_PORT: "):
        load()


@pytest.mark.usefixtures("environment")
def test_an_address_is_refused_where_a_person_writes_it(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match=r"^--port: "):
        from_line("--port", "tcp://10.0.0.1:8080")
    file = tmp_path / "resmem.toml"
    file.write_text('port = "tcp://10.0.0.1:8080"\n')
    with pytest.raises(InvalidSettings, match=r"^port: "):
        load(config=file)


def test_a_variable_that_is_no_setting_is_named_with_the_nearest_one(
    environment: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    environment.setenv("RESMEM_WROKERS", "4")
    environment.setenv("RESMEM_MAX_DELAY", "4")
    environment.setenv("RESMEM_METRICS_PORT", "9090")
    environment.setenv("RESMEM_ZZZ", "")
    environment.setenv("RESMEM_API_KEY", "secret")
    environment.setenv("resmem_log_level", "error")
    assert load().workers == 1
    assert caplog.messages == [
        "RESMEM_MAX_DELAY is ignored: there is no such setting; did you mean RESMEM_MAX_DELAY_MS?",
        "RESMEM_METRICS_PORT is ignored: there is no such setting",
        "RESMEM_WROKERS is ignored: there is no such setting; did you mean RESMEM_WORKERS?",
        "RESMEM_ZZZ is ignored: there is no such setting",
    ]


def test_a_parser_has_flags_for_settings_it_asks_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    parser = ArgumentParser()
    parser.add_argument("--model", type=Path)  # not the setting of that name
    add_flags(parser, ["store", "config"])
    settings = from_args(parser.parse_args(["--model", "file.onnx", "--store", "here"]))
    assert settings.store == Path("here")
    assert settings.model is None
    with pytest.raises(SystemExit):
        parser.parse_args(["--port", "1"])
    assert "unrecognized arguments: --port" in capsys.readouterr().err


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(InvalidSettings, match=r"--port: .*; --threads: "):
        from_line("--port", "-1", "--threads", "-1")


def test_keys_are_separated_by_commas_and_kept_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESMEM_PREDICT_KEYS", "one, two,,")
    file = tmp_path / "resmem.toml"
    file.write_text('memorize_keys = ["three", "four"]\nadmin_keys = "five"\n')
    settings = load(config=file)
    keys = (settings.predict_keys, settings.memorize_keys, settings.admin_keys)
    assert [[key.get_secret_value() for key in some] for some in keys] == [
        ["one", "two"],
        ["three", "four"],
        ["five"],
    ]
    assert "three" not in repr(settings)


def test_a_wrong_key_is_not_repeated_in_the_error(tmp_path: Path) -> None:
    file = tmp_path / "resmem.toml"
    file.write_text('admin_keys = ["secret", 31337]\n')
    with pytest.raises(InvalidSettings, match="admin_keys") as caught:
        load(config=file)
    assert "secret" not in caught.value.message
    assert "31337" not in caught.value.message


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESMEM_MODEL", "")
    monkeypatch.setenv("RESMEM_PORT", "")
    assert load().model is None
    assert load().port == 8080


def test_the_help_shows_sentence_and_default() -> None:
    parser = ArgumentParser()
    add_flags(parser)
    text = " ".join(parser.format_help().split())
    assert "--max-queue-rows" in text
    assert "Most rows accepted and not yet answered, in each worker; beyond it" in text
    assert "Default: 8192." in text


def test_settings_do_not_change_once_made() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().port = 1  # type: ignore[misc]
