"""The worker processes: fresh interpreters that stay, are told what to do, and are missed when they die.

Never forks of this process: after any use of OpenMP in it a forked child may hang. They die with it, however it dies.
"""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, final

from umbel.simulation.board import Board
from umbel.simulation.messages import Hello, Load
from umbel.simulation.region import Region
from umbel.simulation.shipping import modules_by_file
from umbel.simulation.worker import KEPT, ROOM, SMALL

_LIMITS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "BLIS_NUM_THREADS",
)
_BOOT = """\
import sys
sys.path[:] = {path!r}
from multiprocessing.connection import Connection
from umbel.simulation.worker import run
run(Connection({connection}), {lifeline}, {crash})
"""


@final
@dataclass(frozen=True, slots=True)
class Died:
    """A worker is no more.

    Attributes:
        status: how its process ended, as `subprocess` says it.
        traceback: what it could still say, or "".
        hello: had it said anything before?
    """

    status: int
    traceback: str
    hello: bool


@final
class Member:
    """One worker process, as the main process sees it."""

    def __init__(self, number: int, hello: Hello, updates: Region) -> None:
        self.number, self.updates = number, updates
        self._spoke = False
        mine, its = socket.socketpair()
        self._lifeline_end, self._lifeline = os.pipe()
        self._crash = _nameless_file()
        self.connection = Connection(mine.detach())
        boot = _BOOT.format(path=sys.path, connection=its.fileno(), lifeline=self._lifeline_end, crash=self._crash)
        handles = [h for h in (*hello.board, hello.broadcast, hello.updates) if isinstance(h, int)]
        self._process = subprocess.Popen(
            [sys.executable, *subprocess._args_from_interpreter_flags(), "-c", boot],  # type: ignore[attr-defined]
            pass_fds=[its.fileno(), self._lifeline_end, self._crash, *handles],
            stdin=subprocess.DEVNULL,
            env={**os.environ, **dict.fromkeys(_LIMITS, str(hello.threads))},
        )
        its.close()
        os.close(self._lifeline_end)
        self._ended, ended = os.pipe()
        threading.Thread(target=_watch, args=(self._process, ended), name=f"umbel-{number}", daemon=True).start()
        self.send(([*sys.path], hello))
        _alive.add(self)

    def send(self, message: Any) -> None:
        """Tell the worker something; one that has died does not hear it."""
        self.send_bytes(pickle.dumps(message, protocol=5))

    def send_bytes(self, data: bytes) -> None:
        """Tell the worker something that is pickled already."""
        try:
            self.connection.send_bytes(data)
        except OSError:
            return

    def receive(self) -> Any:
        """What the worker said next; None when it says no more."""
        try:
            data = self.connection.recv_bytes()
            self._spoke = True
            return pickle.loads(data)  # noqa: S301  # from our own child
        except (EOFError, OSError):  # the latter in the middle of a message
            return None

    @property
    def ended(self) -> int:
        """A file descriptor that becomes readable when the process ends."""
        return self._ended

    def died(self) -> Died:
        """How the process ended."""
        status = self._process.wait()
        size = os.fstat(self._crash).st_size
        return Died(status, os.pread(self._crash, size, 0).decode(errors="replace"), self._spoke)

    def kill(self) -> None:
        """End the process now, and give everything back but the memory of its updates."""
        if self in _alive:
            self._process.kill()
            self._process.wait()
            self.forget()

    def forget(self) -> None:
        """Close what this process holds of it."""
        _alive.discard(self)
        self.connection.close()
        for file in (self._lifeline, self._crash, self._ended):
            os.close(file)

    def forget_in_child(self) -> None:
        """A forked child of this process must not keep the worker alive."""
        os.close(self._lifeline)


_alive: weakref.WeakSet[Member] = weakref.WeakSet()


def _after_fork() -> None:
    for member in list(_alive):
        member.forget_in_child()
    _alive.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _watch(process: subprocess.Popen[bytes], ended: int) -> None:
    process.wait()
    os.close(ended)


def _nameless_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("umbel-crash")
    import tempfile

    with tempfile.TemporaryFile(prefix="umbel-") as file:
        return os.dup(file.fileno())


@final
class Pool:
    """The workers of a simulation, and what they share.

    Args:
        workers: how many.
        threads: how many each computes with.
        limit: seconds that one task may take; None: any.
    """

    def __init__(self, workers: int, *, threads: int, limit: float | None) -> None:
        self.workers, self._threads, self.limit = workers, threads, limit
        self.board = Board(workers)
        self.broadcast = Region(SMALL)
        self.exchanges = 0  # so far
        self._modules = modules_by_file()
        self._loads: list[Load] = []
        self.members: list[Member] = []
        for number in range(workers):
            self.members.append(self._start(number))

    def _start(self, number: int) -> Member:
        updates = Region(ROOM)
        hello = Hello(
            number=number,
            workers=self.workers,
            board=self.board.handles,
            broadcast=self.broadcast.handle,
            updates=updates.handle,
            threads=self._threads,
            limit=self.limit,
            modules=self._modules,
        )
        return Member(number, hello, updates)

    def load(self, message: Load) -> None:
        """Give an app to all workers, and to those that come later."""
        self._loads.append(message)
        self.tell(message)

    def restart(self, number: int) -> Member:
        """A new worker in the place of one that died."""
        self.members[number].forget()
        member = self.members[number] = self._start(number)
        for message in self._loads[-KEPT:]:
            member.send(message)
        return member

    def tell(self, message: Any) -> None:
        """Tell all workers something."""
        data = pickle.dumps(message, protocol=5)
        for member in self.members:
            member.send_bytes(data)

    def wait(self) -> Sequence[tuple[Member, Any]]:
        """What workers say, or that they `Died`; waits until there is something."""
        sources: Mapping[Any, Member] = {m.connection: m for m in self.members} | {m.ended: m for m in self.members}
        ready = wait(list(sources))
        spoke = [(sources[r], sources[r].receive()) for r in ready if isinstance(r, Connection)]
        said = [(member, message) for member, message in spoke if message is not None]
        heard = {member.number for member, _ in said}
        # what a worker said before it died is heard first
        gone = [sources[r] for r in ready if isinstance(r, int) and sources[r].number not in heard]
        return [*said, *((member, member.died()) for member in gone)]

    def close(self) -> None:
        """End all workers now."""
        for member in self.members:
            member.kill()
            member.updates.close()
        self.board.close()
        self.broadcast.close()


__all__ = ["Died", "Member", "Pool"]
