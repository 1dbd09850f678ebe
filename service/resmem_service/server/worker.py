"""A worker: the process that a supervisor starts, with the descriptor of its pipe."""

import logging
import os
import signal
import socket
import sys
from multiprocessing.connection import Connection
from types import FrameType

from resmem_service.app import ResmemApp
from resmem_service.errors import ResmemError
from resmem_service.server.control import Control
from resmem_service.server.heap import give_memory_back
from resmem_service.server.http_server import HttpServer
from resmem_service.server.messages import Assignment, ToSupervisor, ToWorker
from resmem_service.server.stack_dump import write_stacks_to
from resmem_service.telemetry import logs
from resmem_service.telemetry.metric_storage import MetricStorage, MetricTable

__all__ = ["WorkerServer", "main"]

_log = logging.getLogger(__name__)


class WorkerServer(HttpServer):
    """Signals are the supervisor's; this server ends when told to over the pipe."""

    def __init__(self, app: ResmemApp, control: Control, drain_s: float) -> None:
        super().__init__(app, drain_s)
        self._control = control

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Does nothing: whoever signals all processes at once has told the supervisor as well."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn once its loop runs."""
        self._control.follow(self._app, self, self._drain_s)
        await super().startup(sockets)


def main(descriptor: int) -> int:
    """Serves until told to end and returns 0; 2 if the model turns out not to load."""
    for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    connection: Connection[ToSupervisor, ToWorker] = Connection(descriptor)
    try:
        assignment = connection.recv()
    except EOFError:  # the supervisor was killed meanwhile
        return 1
    assert isinstance(assignment, Assignment)
    settings = assignment.settings
    write_stacks_to(assignment.stacks)
    logs.configure(settings.log_level, settings.log_format, worker=assignment.worker)
    logs.catch_the_rest()
    for inherited in (descriptor, assignment.listener, assignment.table, assignment.stacks):
        os.set_inheritable(inherited, False)
    table = MetricTable(settings.workers, assignment.table)
    storage = MetricStorage(table, assignment.worker)
    control = Control(connection, storage, others_answer=assignment.others_answer)
    give_memory_back()
    try:
        app = ResmemApp(settings, control)
    except (ResmemError, OSError) as error:
        _log.error("the model cannot be served: %s", error)
        return 2
    with socket.socket(fileno=assignment.listener) as listener:
        WorkerServer(app, control, settings.drain_s).run(sockets=[listener])
    return 0 if app.lifecycle.failure is None else 2  # the log says why


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
