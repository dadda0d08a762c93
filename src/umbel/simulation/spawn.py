"""How a worker process starts, what it finds then, and how it learns that we are gone: both ends, by system.

It gets a connection to us, the end of a pipe that nobody writes to, the *lifeline*, which ends with us, and a file for
its last words. POSIX lets a child have files of ours under their numbers. On Windows it gets handles, which it makes
files of; and a socket is made for one process, which must be there before: so it comes through the lifeline.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, Protocol

_F_SETSIG = 10  # of Linux, see fcntl(2); Python has no name for it
_SHARED = 4096  # bytes, more than what stands for a socket has


if sys.platform == "win32":
    import msvcrt

    def pair() -> tuple[socket.socket, socket.socket]:
        """Two sockets that are connected to each other, and to nobody else."""
        mine, its = socket.socketpair()  # through a port of this machine, to which others may connect
        if mine.getsockname() != its.getpeername() or its.getsockname() != mine.getpeername():
            mine.close()
            its.close()
            raise ConnectionError("another process has connected to a socket that was not meant for it")
        for end in (mine, its):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else it waits for more to send
        return mine, its

    def inherited(file: int) -> str:
        """Code that gives the number that a worker has for a file of ours."""
        return f"__import__('msvcrt').open_osfhandle({msvcrt.get_osfhandle(file)}, 0)"

    @contextmanager
    def _inheriting(
        connection: socket.socket, files: Sequence[int], environment: Mapping[str, str]
    ) -> Iterator[dict[str, Any]]:
        """How to start a process that gets these, but for the connection."""
        del connection
        handles = [msvcrt.get_osfhandle(file) for file in files]
        how = {
            "env": environment,
            "creationflags": subprocess.CREATE_NEW_PROCESS_GROUP,  # where Ctrl-C is ignored
            "startupinfo": subprocess.STARTUPINFO(lpAttributeList={"handle_list": handles}),
        }
        if sys.executable != sys._base_executable:  # type: ignore[attr-defined]
            # a virtual environment's is a launcher, whose child would be the worker
            how["executable"] = sys._base_executable  # type: ignore[attr-defined]
            how["env"] = {**environment, "__PYVENV_LAUNCHER__": sys.executable}
        for handle in handles:
            os.set_handle_inheritable(handle, True)
        try:
            yield how
        finally:
            for handle in handles:
                os.set_handle_inheritable(handle, False)

    def _hand_over(connection: socket.socket, lifeline: int, process: int) -> None:
        os.write(lifeline, connection.share(process))

    def connected(number: int, lifeline: int) -> Connection[Any, Any]:
        """A worker's connection to us.

        Args:
            number: of the socket in the process that made it.
            lifeline: its end.
        """
        del number
        return Connection(socket.fromshare(os.read(lifeline, _SHARED)).detach())

    def unblock_interrupt() -> None:
        """Hear of Ctrl-C again, as far as it was not heard of while this process was started."""

    @contextmanager
    def uninterrupted() -> Iterator[None]:
        """A process that is started here does not hear Ctrl-C before it says otherwise."""
        yield

else:

    def pair() -> tuple[socket.socket, socket.socket]:
        """Two sockets that are connected to each other, and to nobody else."""
        return socket.socketpair()

    def inherited(file: int) -> str:
        """Code that gives the number that a worker has for a file of ours."""
        return str(file)

    @contextmanager
    def _inheriting(
        connection: socket.socket, files: Sequence[int], environment: Mapping[str, str]
    ) -> Iterator[dict[str, Any]]:
        """How to start a process that gets these."""
        yield {"env": environment, "pass_fds": [connection.fileno(), *files]}

    def _hand_over(connection: socket.socket, lifeline: int, process: int) -> None:
        pass  # it has it

    def connected(number: int, lifeline: int) -> Connection[Any, Any]:
        """A worker's connection to us.

        Args:
            number: of the socket in the process that made it.
            lifeline: its end.
        """
        del lifeline
        os.set_inheritable(number, False)
        return Connection(number)

    def unblock_interrupt() -> None:
        """Hear of Ctrl-C again, as far as it was not heard of while this process was started."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    @contextmanager
    def uninterrupted() -> Iterator[None]:
        """Ctrl-C waits; and a process that is started here does not hear it before it says otherwise."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Child(Protocol):
    """A process that we have started."""

    def forget_in_child(self) -> None:
        """A forked child of this process must not keep it alive."""


alive: weakref.WeakSet[Child] = weakref.WeakSet()


def _after_fork() -> None:
    for child in list(alive):
        child.forget_in_child()
    alive.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


_starting = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_starting.acquire, after_in_parent=_starting.release, after_in_child=_starting.release)


@contextmanager
def unforked() -> Iterator[None]:
    """Forks by other threads wait: one would hold ends of sockets and pipes that nobody has noted yet."""
    with _starting:
        yield


def start(
    code: str,
    connection: socket.socket,
    lifeline: tuple[int, int],
    *,
    files: Sequence[int],
    environment: Mapping[str, str],
    streams: Mapping[str, int],
) -> subprocess.Popen[bytes]:
    """Start a worker.

    Args:
        code: what it executes.
        connection: its end.
        lifeline: its end, and ours.
        files: what else it gets.
        environment: its variables.
        streams: where its "stdout" and "stderr" go, if not where ours do.
    """
    with _inheriting(connection, [lifeline[0], *files], environment) as how:
        process = subprocess.Popen(
            [sys.executable, *subprocess._args_from_interpreter_flags(), "-c", code],  # type: ignore[attr-defined]
            stdin=subprocess.DEVNULL,
            stdout=streams.get("stdout"),
            stderr=streams.get("stderr"),
            **how,
        )
    _hand_over(connection, lifeline[1], process.pid)
    return process


def die_with_parent(lifeline: int) -> None:
    """End this process when the other end of a pipe is closed, which the system does when the parent is gone.

    The system does that, too, where it can: a thread has to wait for a long computation to let go of the interpreter,
    and forking with a second thread is warned of.
    """
    if sys.platform == "linux":
        import fcntl
        import select

        try:
            fcntl.fcntl(lifeline, _F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
            fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
        except OSError:
            pass  # some other kernel that calls itself Linux
        else:
            if select.select([lifeline], [], [], 0)[0]:  # it is gone already
                os._exit(1)
            return

    def watch() -> None:
        with contextlib.suppress(OSError):
            os.read(lifeline, 1)
        os._exit(1)

    threading.Thread(target=watch, name="umbel-lifeline", daemon=True).start()


def end_of(process: subprocess.Popen[bytes]) -> tuple[int | socket.socket, threading.Thread | None]:
    """What becomes readable when a process ends, and the thread that sees to it, if there is one."""
    if sys.platform == "linux" and hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):  # an older kernel
            return os.pidfd_open(process.pid), None
    ended, ending = pair()

    def watch() -> None:
        process.wait()
        with ending:
            ending.send(b".")  # a child that was forked from us may have that end open, too

    watcher = threading.Thread(target=watch, name=f"umbel-{process.pid}", daemon=True)
    watcher.start()
    return ended, watcher


__all__ = [
    "alive",
    "connected",
    "die_with_parent",
    "end_of",
    "inherited",
    "pair",
    "start",
    "unblock_interrupt",
    "unforked",
    "uninterrupted",
]
