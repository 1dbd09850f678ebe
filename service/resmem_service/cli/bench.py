"""`resmem bench`: load on a running server, measured."""

import os
import sys
from argparse import ArgumentParser, Namespace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from resmem_service.cli.flags import add_settings, positive
from resmem_service.errors import LoadFailed
from resmem_service.extra import require
from resmem_service.settings import Settings

if TYPE_CHECKING:
    from resmem_service.inference.rows import Rows
    from resmem_service.inference.tensor_spec import TensorSpec
    from resmem_service.load.target import Target

__all__ = ["declare", "run"]

_PATH: Final = "/predict"


def declare(parser: ArgumentParser) -> None:
    """Declare the command and its options."""
    parser.description = (
        "Sends predictions to a server that runs already and prints throughput, "
        "latency, errors by status and, where the server is on this machine, its CPU time per "
        "request; saves a plot. Client and server share a machine's cores if they are on the same "
        "one. Needs the extra `bench`."
    )
    add = parser.add_argument
    add_settings(parser)
    add(
        "--url",
        help="the server; by default the one of the settings `host` and `port` on this machine",
    )
    add(
        "--data",
        metavar="FILE",
        help="rows to send: .npz, x.npy,y.npy or .parquet as for `fit` (targets are left out), or "
        ".json, a body for /predict, whose other keys are kept; by default noise, which is "
        "searched for differently than real rows",
    )
    add("--rows", type=positive, default=1, metavar="N", help="rows in each request (1)")
    add(
        "--concurrency",
        type=positive,
        default=16,
        metavar="N",
        help="connections, each with one request at a time (16)",
    )
    add(
        "--duration",
        type=_more_than_nothing,
        default=10.0,
        metavar="S",
        help="seconds measured (10)",
    )
    add("--warmup", type=_not_negative, default=2.0, metavar="S", help="seconds of load before (2)")
    add(
        "--rate",
        type=_more_than_nothing,
        metavar="R",
        help="requests per second, whether or not earlier ones are answered (open loop); a latency "
        "then counts from when a request was due. By default each connection sends again when it "
        "is answered",
    )
    add(
        "--timeout", type=_more_than_nothing, default=30.0, metavar="S", help="seconds to wait (30)"
    )
    add(
        "--api-key",
        default=os.environ.get("RESMEM_API_KEY") or None,
        metavar="KEY",
        help="a key with the scope `predict` (default: $RESMEM_API_KEY)",
    )
    add(
        "--pid",
        type=positive,
        help="the server's process, whose CPU time is measured with that of all below it; by "
        "default the one that listens at the URL",
    )
    add(
        "--plot",
        type=Path,
        default=Path("resmem-bench.png"),
        metavar="FILE",
        help="where to save the plot (resmem-bench.png)",
    )
    add("--json", action="store_true", help="print one JSON object, for a program")
    parser.set_defaults(run=run)


def run(args: Namespace, settings: Settings) -> int:
    """Measure, print, and save the plot; 1 if no request was answered with success.

    Raises:
        ResmemError: the server is not there or goes away, or the rows do not fit its model.
    """
    require("matplotlib", "the plot of `resmem bench`", "bench")
    require("psutil", "the CPU time in `resmem bench`", "bench")
    # Here, not above: the other commands work without the extra, and start faster.
    import orjson

    from resmem_service.load.bodies import bodies_of
    from resmem_service.load.generator import carry_out
    from resmem_service.load.inquiry import Inquiry
    from resmem_service.load.load import Load
    from resmem_service.load.plot import draw
    from resmem_service.load.report import render
    from resmem_service.load.target import Target
    from resmem_service.progress import progress_for

    target = Target.parse(args.url or _own_url(settings))
    headers = {} if args.api_key is None else {"authorization": f"Bearer {args.api_key}"}
    inquiry = Inquiry(target, headers)
    model = inquiry.model()
    if args.data is None:
        progress_for(settings.log_format).say(
            "no --data: the rows are noise, for which a search may take longer"
        )
    rows, options = _rows(args.data, model.inputs)
    bodies = bodies_of(rows, args.rows, options)
    inquiry.try_out(_PATH, bodies[0])
    pid, cpu_of = _server_process(args.pid, target)
    load = Load(
        target,
        [target.post(_PATH, body, headers) for body in bodies],
        args.concurrency,
        args.duration,
        args.warmup,
        args.rate,
        args.timeout,
        pid,
    )
    title = f"{target.url}{_PATH}: {model.name}/{model.version}, {model.memories:,} memories"
    if not args.json:
        sys.stdout.write(f"{title}\n")
        sys.stdout.flush()
    result = carry_out(load)
    rows_each = f"{args.rows} row{'s' * (args.rows > 1)} a request"
    draw(args.plot, result, f"{title}; {args.concurrency} connections, {rows_each}")
    if args.json:
        found = result.summary() | {"rows_per_request": args.rows, "plot": str(args.plot)}
        sys.stdout.write(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        sys.stdout.write(render(load, result, rows=args.rows, cpu_of=cpu_of))
        sys.stdout.write(f"{'plot':<12} {args.plot}\n")
    return 0 if result.completed else 1


def _own_url(settings: Settings) -> str:
    """Where a server with these settings is reached from its own machine."""
    host = settings.host or "127.0.0.1"
    if host in ("0.0.0.0", "::"):  # noqa: S104 - a server that listens everywhere listens here too
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def _rows(data: str | None, specs: "list[TensorSpec]") -> "tuple[Rows, dict[str, Any]]":
    from resmem_service.fit.dataset import read_inputs
    from resmem_service.load.bodies import random_rows, read_body

    if data is None:
        return random_rows(specs), {}
    if data.endswith(".json"):
        return read_body(Path(data), specs)
    return read_inputs(data, specs), {}


def _server_process(pid: int | None, target: "Target") -> tuple[int | None, str]:
    """The process to measure, and what to call it; or None, and why."""
    from resmem_service.load.process_tree import ProcessTree, TreeUnknown

    try:
        tree = ProcessTree.listening(target) if pid is None else ProcessTree.of(pid)
    except TreeUnknown as error:
        if pid is not None:
            raise LoadFailed(str(error), "pid") from None
        return None, str(error)
    return tree.root.pid, tree.describe()


def _not_negative(text: str) -> float:
    number = float(text)
    if not 0 <= number < inf:
        raise ValueError
    return number


def _more_than_nothing(text: str) -> float:
    number = _not_negative(text)
    if number == 0:
        raise ValueError
    return number
