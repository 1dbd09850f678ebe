"""The servers of the comparison, ResMem among them."""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resmem_service.child_command import module_command

from benchmarks.speed.contender import Contender, RunningServer, free_port
from benchmarks.speed.digit_models import DigitModels
from benchmarks.speed.environments import ensure
from benchmarks.speed.servers.model import BATCH, MODEL

__all__ = ["BASE", "MEMORY", "contenders", "resmem_contenders"]

BASE, MEMORY = "resmem-base", "resmem-memory"

_SERVERS = "benchmarks.speed.servers"
_WORK = Path("benchmarks/out/comparison")
_UVICORN = ("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning")
_ASGI = ("uvicorn", "starlette", "uvloop", "httptools")


def contenders(models: DigitModels) -> list[Contender]:
    """All of them, the simplest first; installs their environments."""
    root = str(Path.cwd())
    others = {MODEL: str(models.scores_model), "PYTHONPATH": root}
    return [
        _uvicorn("constant", "ASGI, a constant", others, checked=False),
        _uvicorn("asgi_inline", "ASGI + orjson + ONNX Runtime", others, "orjson"),
        _inline_search(models),
        *resmem_contenders(models).values(),
        _mosec(others, 64),
        _mosec(others, 1),
        _uvicorn("fastapi_plain", "FastAPI", others, "fastapi", "pydantic"),
        _mlserver(others, 64),
        _mlserver(others, 1),
        _litserve(others),
        _bentoml(others),
    ]


def resmem_contenders(models: DigitModels) -> dict[str, Contender]:
    """Those of the service itself, by name."""
    return {
        BASE: _resmem(BASE, "ResMem, memory empty", "few", models),
        MEMORY: _resmem(MEMORY, "ResMem, 60,000 memories", "many", models),
    }


def _uvicorn(
    module: str, title: str, environment: dict[str, str], *packages: str, checked: bool = True
) -> Contender:
    python = ensure("asgi")

    def command(port: int) -> list[str]:
        app = f"{_SERVERS}.{module}:app"
        return [str(python), "-m", "uvicorn", app, "--port", str(port), *_UVICORN]

    return Contender(
        module,
        title,
        command,
        environment,
        checked=checked,
        interpreter=python,
        packages=(*packages, *_ASGI),
    )


def _inline_search(models: DigitModels) -> Contender:
    """In our own environment: it needs the kernel."""

    def command(port: int) -> list[str]:
        app = f"{_SERVERS}.asgi_search:app"
        return [sys.executable, "-m", "uvicorn", app, "--port", str(port), *_UVICORN]

    bundle = models.store / "many" / "1"
    return Contender(
        "asgi_search",
        "ASGI + orjson + ONNX Runtime + search, 60,000 memories",
        command,
        {MODEL: str(bundle.absolute())},
        scores=lambda answer: answer["base"][0],
        tempered=True,
        packages=_ASGI,
    )


def _resmem(name: str, title: str, model: str, models: DigitModels) -> Contender:
    state = _WORK / "state" / name

    def command(port: int) -> list[str]:
        shutil.rmtree(state, ignore_errors=True)
        return module_command("resmem_service", "serve", "--port", str(port))

    environment = {
        "RESMEM_STORE": str(models.store),
        "RESMEM_MODEL": model,
        "RESMEM_STATE_DIR": str(state),
        "RESMEM_LOG_LEVEL": "warning",
    }
    return Contender(
        name,
        title,
        command,
        environment,
        scores=lambda answer: answer["predictions"][0]["base"]["scores"],
        tempered=True,
        after_start=_forget_all if name == BASE else None,
        packages=("resmem-service", "numpy", "onnxruntime", *_ASGI),
    )


def _forget_all(server: RunningServer) -> None:
    """Leaves the base alone: every memory of the bundle is forgotten."""
    status, reply = server.request("DELETE", "/memories?source=fit")
    size = json.loads(reply)["memory"]["size"]
    if status != 200 or size != 0:
        raise RuntimeError(f"the memory is not empty: {reply!r}")


def _mosec(environment: dict[str, str], batch: int) -> Contender:
    python = ensure("mosec")

    def command(port: int) -> list[str]:
        options = ["--address", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
        return [str(python), "-m", f"{_SERVERS}.mosec_worker", *options]

    return Contender(
        "mosec" if batch > 1 else "mosec-single",
        f"mosec, {_batches(batch)}",
        command,
        environment | {BATCH: str(batch)},
        path="/inference",
        interpreter=python,
        packages=("mosec", "msgspec"),
    )


def _mlserver(environment: dict[str, str], batch: int) -> Contender:
    python = ensure("mlserver")
    name = "mlserver" if batch > 1 else "mlserver-single"
    folder = _WORK / name

    def command(port: int) -> list[str]:
        folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "debug": False,
            "host": "127.0.0.1",
            "http_port": port,
            "grpc_port": free_port(),
            "metrics_port": free_port(),
            "parallel_workers": 0,
        }
        model = {
            "name": "digits",
            "implementation": f"{_SERVERS}.mlserver_runtime.Digits",
            "max_batch_size": batch,
            "max_batch_time": 0.001,
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        (folder / "model-settings.json").write_text(json.dumps(model))
        return [str(python.with_name("mlserver")), "start", str(folder)]

    def body(row: Sequence[float]) -> dict[str, Any]:
        tensor = {"name": "pixels", "shape": [1, len(row)], "datatype": "FP32", "data": row}
        return {"inputs": [tensor]}

    return Contender(
        name,
        f"MLServer, {_batches(batch)}",
        command,
        environment,
        path="/v2/models/digits/infer",
        body=body,
        scores=lambda answer: answer["outputs"][0]["data"],
        interpreter=python,
        packages=("mlserver", "fastapi", "uvicorn", "uvloop"),
    )


def _batches(size: int) -> str:
    return f"batches of up to {size}" if size > 1 else "no batches"


def _litserve(environment: dict[str, str]) -> Contender:
    python = ensure("litserve")

    def command(port: int) -> list[str]:
        return [str(python), "-m", f"{_SERVERS}.litserve_api", "--port", str(port)]

    return Contender(
        "litserve",
        "LitServe, batches of up to 64",
        command,
        environment | {BATCH: "64"},
        interpreter=python,
        packages=("litserve", "fastapi", "pyzmq", "uvicorn", "uvloop"),
    )


def _bentoml(environment: dict[str, str]) -> Contender:
    python = ensure("bentoml")
    home = {"BENTOML_HOME": str((_WORK / "bentoml").absolute()), "BENTOML_DO_NOT_TRACK": "True"}

    def command(port: int) -> list[str]:
        service = f"{_SERVERS}.bentoml_service:Digits"
        return [str(python.with_name("bentoml")), "serve", service, "--host", "127.0.0.1",
                "--port", str(port)]  # fmt: skip

    return Contender(
        "bentoml",
        "BentoML, adaptive batches",
        command,
        environment | home,
        scores=lambda answer: answer[0],
        interpreter=python,
        packages=("bentoml", "starlette", "uvicorn"),
    )
