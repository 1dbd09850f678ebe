"""Every option of the server, once: a field is a flag, an environment variable and a file key.

`max_batch_rows` is `--max-batch-rows`, `RESMEM_MAX_BATCH_ROWS` and the key `max_batch_rows` of the
TOML file that `--config` or `RESMEM_CONFIG` names. A flag wins over the environment, that over the
file, that over the default. Units stand in the names. A leaf: imports nothing of the service but
its errors.
"""

import logging
import os
import re
import tomllib
from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from resmem_service.errors import InvalidSettings

__all__ = ["Settings", "add_flags", "from_args", "load", "markdown_table"]

_PREFIX: Final = "RESMEM_"

_NO_SETTINGS: Final = {"RESMEM_API_KEY"}
"""Variables that others read: the key that `resmem bench` sends."""

_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://\S+:\d+", re.IGNORECASE)
"""What Kubernetes gives RESMEM_PORT in every pod beside a Service called `resmem`."""

_OF_A_SERVICE: Final = re.compile(
    r"\w+_SERVICE_(HOST|PORT)(_\w+)?|\w+_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?"
)
"""The other variables of a Service of Kubernetes whose name begins with `resmem`."""

_FLAGS: Final = "declared_settings"
"""Where a parser keeps the settings that it has flags for."""

_log = logging.getLogger(__name__)

Keys = Annotated[tuple[SecretStr, ...], NoDecode]


def _check_origin(origin: str) -> str:
    if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s?#@]+", origin):
        raise ValueError(
            f"{origin!r} is not an origin: write it as `https://host` or `https://host:port`, "
            "without a path, or `*` for every page"
        )
    return origin


Origins = Annotated[tuple[Annotated[str, AfterValidator(_check_origin)], ...], NoDecode]


class Settings(BaseSettings):
    """The options, checked. Make one with `load` or `from_args`, whose errors a user can read."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_ignore_empty=True, extra="forbid", frozen=True
    )

    config: Path | None = Field(None, description="TOML file with any of the other settings.")
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    store: Path = Field(Path("model_store"), description="Folder of the bundles.")
    model: str | None = Field(
        None,
        description="Bundle to serve, `name` or `name/version`; "
        "by default the only one in the store, in its current version.",
    )
    state_dir: Path = Field(
        Path("state"), description="Folder of the journal and of the segments sealed from it."
    )
    workers: int = Field(
        1,
        ge=1,
        le=256,
        description="Processes that serve, on one socket and with one memory; "
        "one that dies is replaced.",
    )
    worker_timeout_s: float = Field(
        30.0,
        ge=1,
        allow_inf_nan=False,
        description="Of several workers, one that does nothing for this long hangs and is "
        "replaced; must be more than the longest batch takes.",
    )
    worker_start_timeout_s: float = Field(
        1800.0,
        ge=1,
        allow_inf_nan=False,
        description="Of several workers, one that has not loaded the model by then, at its start "
        "or for a reload, is replaced.",
    )
    provider: Literal["auto", "cpu", "cuda", "tensorrt"] = Field(
        "auto",
        description="What ONNX Runtime runs the base model on; "
        "`auto` is a CUDA GPU where there is one, else the CPU.",
    )
    threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="Threads of ONNX Runtime in each worker; "
        "0 shares the CPUs that the process may use, its quota of CPU time included, "
        "out among the workers.",
    )
    max_body_bytes: int = Field(
        64 * 2**20,
        ge=1024,
        description="Largest body of a request, after decompression; beyond it: 413.",
    )
    max_head_bytes: int = Field(
        64 * 2**10,
        ge=1024,
        le=2**20,
        description="Largest head of a request, first line and headers; beyond it: 431.",
    )
    max_inflight_bytes: int | None = Field(
        None,
        ge=2**16,
        description="Most memory that the bodies of requests in flight may take, what comes out "
        "of compressed ones included, in all workers together; beyond it the answer is 503. By "
        "default a quarter of the memory that the service may use.",
    )
    max_connections: int = Field(
        4096,
        ge=1,
        le=2**20,
        description="Most open connections of each worker; for one more an idle one is closed, "
        "and where none is idle the answer is 503.",
    )
    head_timeout_s: float = Field(
        10.0,
        gt=0,
        allow_inf_nan=False,
        description="How long the head of a request may take to arrive, and a new connection "
        "to send anything; then 408, or the connection is closed.",
    )
    body_timeout_s: float = Field(
        30.0,
        gt=0,
        allow_inf_nan=False,
        description="How long nothing of a body may arrive before the answer is 408.",
    )
    min_body_bytes_per_s: int = Field(
        8192,
        ge=1,
        description="Rate at which a body must arrive, and an answer be read, once it has taken "
        "longer than `body_timeout_s` or `send_timeout_s`; a slower body is answered with 408.",
    )
    send_timeout_s: float = Field(
        30.0,
        gt=0,
        allow_inf_nan=False,
        description="How long a client may read nothing of an answer before its connection is "
        "ended.",
    )
    keep_alive_s: float = Field(
        75.0,
        gt=0,
        allow_inf_nan=False,
        description="How long a connection stays open between requests; longer than load "
        "balancers in front keep theirs, so that they end it and not the server.",
    )
    max_request_rows: int = Field(
        4096, ge=1, description="Most rows in one request; beyond it the answer is 413."
    )
    max_batch_rows: int = Field(
        256, ge=1, description="Most rows that run through the model at once."
    )
    max_queue_rows: int = Field(
        8192,
        ge=1,
        description="Most rows accepted and not yet answered, in each worker; "
        "beyond it the answer is 429.",
    )
    max_delay_ms: float = Field(
        0.0,
        ge=0,
        le=60_000,
        allow_inf_nan=False,
        description="How long a row may wait for company before a batch that is not full runs; "
        "0 never waits.",
    )
    max_inline_ms: float = Field(
        4.0,
        ge=0,
        le=1000,
        allow_inf_nan=False,
        description="A batch expected to take no longer runs on the event loop, which spares two "
        "hand-overs between threads; 0 never does.",
    )
    max_neighbours: int = Field(
        100, ge=0, description="Most neighbours that a request may ask for, for each row."
    )
    growing_bytes: int = Field(
        4 * 2**20,
        ge=2**16,
        description="Size at which the growing segment is sealed; "
        "exact search slows down once it outgrows the CPU's cache.",
    )
    max_growing_bytes: int = Field(
        256 * 2**20,
        ge=2**17,
        description="Memories that wait in RAM to be sealed; beyond it the answer to /memorize "
        "is 429.",
    )
    max_segment_rows: int = Field(
        4_000_000,
        ge=1,
        description="Sealed segments are merged up to this size, which bounds the RAM of a build.",
    )
    capacity_rows: int | None = Field(
        None,
        ge=1,
        description="Most memories added online; beyond it the oldest are forgotten. "
        "No bound by default.",
    )
    capacity_bytes: int | None = Field(
        None,
        ge=1,
        description="Most bytes that memories added online take on the disk, journal and segments "
        "together; beyond it the oldest are forgotten. No bound by default.",
    )
    max_age_s: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Age at which memories added online are forgotten. No bound by default.",
    )
    max_weight: float | None = Field(
        None,
        gt=0,
        le=1e9,
        description="Largest importance (`weights` of `/memorize`) of one memory; beyond it the "
        "answer is 422. Unset: 4 times the `teaching_weight` of the bundle, and at least 4.",
    )
    busy_ms: int = Field(
        2000,
        ge=0,
        le=60_000,
        description="How long a write waits for another process that has the journal locked; "
        "then the answer is 507.",
    )
    shutdown_delay_s: float = Field(
        0.0,
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description="How long the server still takes requests after SIGTERM, while `/readyz` is "
        "503 already, so that load balancers go elsewhere first; the image sets 5.",
    )
    drain_s: float = Field(
        30.0,
        ge=0,
        allow_inf_nan=False,
        description="How long requests under way may take to end when the server is told to stop, "
        "after `shutdown_delay_s`.",
    )
    predict_keys: Keys = Field(
        (),
        description="Keys that may predict, separated by commas; "
        "while no key is set at all, everybody may do everything.",
    )
    memorize_keys: Keys = Field(
        (),
        description="Keys that may memorize, and read or forget single memories, "
        "separated by commas.",
    )
    admin_keys: Keys = Field((), description="Keys that may do everything, separated by commas.")
    cors_origins: Origins = Field(
        (),
        description="Origins of web pages that may use the service from a browser, as "
        "`https://host` or `https://host:port`, separated by commas; `*` is every page.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe lines to log."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Log lines for people, or one JSON object a line."
    )

    @field_validator("predict_keys", "memorize_keys", "admin_keys", "cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            return value
        stripped = [part.strip() if isinstance(part, str) else part for part in parts]
        return [part for part in stripped if part != ""]

    @model_validator(mode="after")
    def _requests_fit_the_queue(self) -> Self:
        if self.max_request_rows > self.max_queue_rows:
            raise ValueError(
                f"max_request_rows ({self.max_request_rows}) is more than max_queue_rows "
                f"({self.max_queue_rows}): such a request could never be served"
            )
        return self

    @model_validator(mode="after")
    def _a_body_fits_the_memory(self) -> Self:
        if self.max_inflight_bytes is not None and self.max_inflight_bytes < self.max_body_bytes:
            raise ValueError(
                f"max_inflight_bytes ({self.max_inflight_bytes}) is less than max_body_bytes "
                f"({self.max_body_bytes}): such a body could never be served; lower max_body_bytes"
            )
        return self

    @model_validator(mode="after")
    def _a_growing_segment_can_fill_up(self) -> Self:
        if self.max_growing_bytes < 2 * self.growing_bytes:
            raise ValueError(
                f"max_growing_bytes ({self.max_growing_bytes}) is less than twice growing_bytes "
                f"({self.growing_bytes}): memories would be refused before any could be sealed"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then the environment, then the file that one of these two names."""
        environment = env_settings()
        for name in _addresses(environment):
            del environment[name]
        own = InitSettingsSource(settings_cls, environment)
        path = init_settings().get("config") or environment.get("config")
        if path is None:
            return init_settings, own
        return init_settings, own, InitSettingsSource(settings_cls, _read(Path(path)))


def load(**flags: object) -> Settings:
    """Settings from values given here, the environment, the file and the defaults.

    Variables that look like settings and are none are named in a warning each.

    Raises:
        InvalidSettings: naming the setting, and where its value comes from.
    """
    _warn_of_unknown_variables()
    try:
        settings = Settings(**flags)  # type: ignore[arg-type]  # pydantic checks them
    except ValidationError as error:
        lines = [
            _complaint(str(one["loc"][0]) if one["loc"] else "", one["msg"], flags)
            for one in error.errors(include_url=False, include_input=False)
        ]
        raise InvalidSettings("; ".join(lines)) from None
    _warn_of_addresses(settings)
    return settings


def add_flags(parser: ArgumentParser, names: Iterable[str] | None = None) -> None:
    """Add a flag for each of the settings `names`, by default for all; `from_args` reads them.

    Flags that are not given leave the namespace alone.
    """
    chosen = set(Settings.model_fields if names is None else names)
    assert chosen <= Settings.model_fields.keys()
    parser.set_defaults(**{_FLAGS: chosen})
    for name, field in Settings.model_fields.items():
        if name not in chosen:
            continue
        default = _default(field)
        parser.add_argument(
            _flag(name),
            dest=name,
            default=SUPPRESS,
            metavar=name.rsplit("_", 1)[-1].upper(),
            help=f"{field.description}{f' Default: {default}.' if default else ''}".replace(
                "%", "%%"
            ),
        )


def from_args(namespace: Namespace) -> Settings:
    """Settings from the flags of `add_flags` on a parsed command line, see `load`.

    Raises:
        InvalidSettings: see `load`.
    """
    given = vars(namespace)
    return load(**{name: given[name] for name in given[_FLAGS] if name in given})


def markdown_table() -> str:
    """The table of `docs/settings.md`: a line for each setting."""
    lines = [
        "| flag | environment | file key | default | what it does |",
        "|---|---|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        default = _default(field)
        lines.append(
            f"| `{_flag(name)}` | `{_PREFIX}{name.upper()}` "
            f"| {'' if name == 'config' else f'`{name}`'} "
            f"| {f'`{default}`' if default else ''} | {field.description} |"
        )
    return "\n".join(lines) + "\n"


def _read(path: Path) -> dict[str, Any]:
    """Read the settings file; unknown keys are refused, since a typing error would go unseen."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidSettings(
            f"the settings file {path} cannot be read: {error.strerror}"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"the settings file {path} is not TOML: {error}") from None
    known = Settings.model_fields.keys() - {"config"}
    unknown = sorted(content.keys() - known)
    if unknown:
        raise InvalidSettings(
            f"the settings file {path} has unknown keys: {', '.join(unknown)}; "
            f"it may have: {', '.join(sorted(known))}"
        )
    return content


def _addresses(environment: dict[str, Any]) -> list[str]:
    """The ports of the environment that Kubernetes set, not a person."""
    return [
        name
        for name, value in environment.items()
        if (name == "port" or name.endswith("_port")) and _ADDRESS.fullmatch(str(value))
    ]


def _warn_of_addresses(settings: Settings) -> None:
    variables = {name.lower(): (name, value) for name, value in os.environ.items()}
    ports = {name: variables.get(f"{_PREFIX}{name}".lower()) for name in Settings.model_fields}
    for name in _addresses({name: found[1] for name, found in ports.items() if found}):
        variable, value = ports[name] or ("", "")
        _log.warning(
            "%s=%s is ignored: it is the address that Kubernetes sets for a Service of that name; "
            "%s is %s. `enableServiceLinks: false` in the pod's spec keeps the variable away",
            variable, value, name, getattr(settings, name),
        )  # fmt: skip


def _warn_of_unknown_variables() -> None:
    known = {f"{_PREFIX}{name.upper()}" for name in Settings.model_fields}
    for variable, value in sorted(os.environ.items()):
        name = variable.upper()
        if not name.startswith(_PREFIX) or name in known | _NO_SETTINGS:
            continue
        if _OF_A_SERVICE.fullmatch(name) or (
            name.endswith("_PORT") and _ADDRESS.fullmatch(value.strip())
        ):
            continue
        near = get_close_matches(name.removeprefix(_PREFIX).lower(), Settings.model_fields, n=1)
        hint = f"; did you mean {_PREFIX}{near[0].upper()}?" if near else ""
        _log.warning("%s is ignored: there is no such setting%s", variable, hint)


def _complaint(name: str, message: str, flags: dict[str, object]) -> str:
    message = message.removeprefix("Value error, ")
    if not name:
        return message
    if name in flags:
        return f"{_flag(name)}: {message}"
    of_environment = {variable.upper() for variable, value in os.environ.items() if value}
    variable = f"{_PREFIX}{name.upper()}"
    return f"{variable if variable in of_environment else name}: {message}"


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _default(field: FieldInfo) -> str:
    default = field.get_default()
    return "" if default is None or default == () else str(default)
