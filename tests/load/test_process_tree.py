import os
import socket
import subprocess
import sys

import psutil
import pytest
from resmem_service.load.process_tree import ProcessTree, TreeUnknown
from resmem_service.load.target import Target

BURN = "import time\nwhile time.process_time() < {seconds}: pass\n"


def listening_port() -> tuple[socket.socket, Target]:
    listener = socket.create_server(("127.0.0.1", 0))
    return listener, Target("127.0.0.1", listener.getsockname()[1])


def test_time_of_a_child_that_has_ended_counts() -> None:
    """The parent runs a child that burns CPU, waits for it, and waits for us."""
    child = BURN.format(seconds=0.5)
    parent = (
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}])\n"
        "print('done', flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        tree = ProcessTree.of(process.pid)
        assert [one.pid for one in tree.processes()] == [process.pid]
        assert tree.cpu_s(tree.processes()) >= 0.5
        process.communicate()


def test_living_children_count() -> None:
    child = BURN.format(seconds=0.3) + "print(1, flush=True)\ninput()\n"
    parent = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], stdin=subprocess.PIPE,"
        " stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print('done', flush=True)\nsys.stdin.read()\nchild.communicate(b'\\n')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        tree = ProcessTree.of(process.pid)
        assert len(tree.processes()) == 2
        assert tree.cpu_s(tree.processes()) >= 0.3
        assert "and 1 below it" in tree.describe()
        process.communicate()


def test_the_process_that_listens_is_found() -> None:
    listener, target = listening_port()
    with listener:
        assert ProcessTree.listening(target).root.pid == os.getpid()
    with pytest.raises(TreeUnknown, match=f"listens on port {target.port}"):
        ProcessTree.listening(target)


def test_of_several_that_listen_the_one_above_is_taken() -> None:
    """As under `resmem serve --workers`: the workers listen on what the supervisor opened."""
    listener, target = listening_port()
    with (
        listener,
        subprocess.Popen(
            [sys.executable, "-c", "print(1, flush=True); input()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[listener.fileno()],
        ) as worker,
    ):
        assert worker.stdout is not None
        worker.stdout.readline()
        assert ProcessTree.listening(target).root.pid == os.getpid()
        worker.communicate(b"\n")


def test_another_machine_has_no_process_here() -> None:
    with pytest.raises(TreeUnknown, match="another machine"):
        ProcessTree.listening(Target("192.0.2.1", 8080))


def test_what_forwards_to_a_container_is_not_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil.Process, "name", lambda _: "docker-proxy")
    listener, target = listening_port()
    with listener, pytest.raises(TreeUnknown, match="docker-proxy"):
        ProcessTree.listening(target)


def test_no_such_process() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    with pytest.raises(TreeUnknown, match=str(process.pid)):
        ProcessTree.of(process.pid)
