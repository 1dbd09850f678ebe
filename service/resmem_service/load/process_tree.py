"""The CPU time of a server: of its process and of every process below it."""

import socket
from dataclasses import dataclass
from typing import Any, Final, Self

import psutil

from resmem_service.load.target import Target

__all__ = ["ProcessTree", "TreeUnknown"]

_FORWARDERS: Final = frozenset({"docker-proxy", "rootlessport", "slirp4netns", "pasta", "passt"})
"""Processes that listen for a container, whose own are elsewhere."""


class TreeUnknown(Exception):
    """Which process the server is cannot be told; says why."""


@dataclass(frozen=True, slots=True)
class ProcessTree:
    """A process and all below it."""

    root: psutil.Process

    @classmethod
    def of(cls, pid: int) -> Self:
        """The tree below a process.

        Raises:
            TreeUnknown: there is no such process.
        """
        try:
            return cls(psutil.Process(pid))
        except psutil.Error:
            raise TreeUnknown(f"there is no process {pid}") from None

    @classmethod
    def listening(cls, target: Target) -> Self:
        """The tree of the process that listens at a target; of several, the one above the others.

        Raises:
            TreeUnknown: the target is on another machine, in a container, or somebody else's.
        """
        if not _is_here(target.host):
            raise TreeUnknown("the server is on another machine")
        try:
            found = [one.pid for one in psutil.net_connections("tcp") if _listens(one, target.port)]
        except psutil.AccessDenied:
            raise TreeUnknown("this system tells only root who listens; name the --pid") from None
        if not found or found[0] is None:
            raise TreeUnknown(f"no process of ours listens on port {target.port}; name the --pid")
        root = cls.of(found[0]).root
        while (above := root.parent()) is not None and _has_socket(above, target.port):
            root = above
        if root.name() in _FORWARDERS:
            raise TreeUnknown(f"{root.name()} listens for it; name the --pid")
        return cls(root)

    def describe(self) -> str:
        """What a person would recognise it by."""
        try:
            below = len(self.root.children(recursive=True))
            words = self.root.cmdline()[:4]
        except psutil.Error:
            return f"process {self.root.pid}"
        return f"process {self.root.pid}, {' '.join(words)}" + (
            f", and {below} below it" * (below > 0)
        )

    def processes(self) -> list[psutil.Process]:
        """All that live now; to find them takes milliseconds."""
        try:
            return [self.root, *self.root.children(recursive=True)]
        except psutil.Error:
            return [self.root]

    @staticmethod
    def cpu_s(processes: list[psutil.Process]) -> float:
        """CPU seconds that they have taken, with all of their children that have ended."""
        total = 0.0
        for process in processes:
            try:
                total += sum(process.cpu_times()[:4])  # user, system, and both of ended children
            except psutil.Error:  # it has ended: its parent's count has it
                continue
        return total


def _listens(one: Any, port: int) -> bool:
    return one.status == psutil.CONN_LISTEN and bool(one.laddr) and one.laddr.port == port


def _has_socket(process: psutil.Process, port: int) -> bool:
    """Of processes that share a socket the system names one, a worker or its supervisor."""
    try:
        return any(_listens(one, port) for one in process.net_connections("tcp"))
    except psutil.Error:
        return False


def _is_here(host: str) -> bool:
    try:
        addresses = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    ours = {one.address for each in psutil.net_if_addrs().values() for one in each}
    return any(address in ours or str(address).startswith("127.") for address in addresses)
