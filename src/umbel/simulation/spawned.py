"""A process with an app's code in it, both ends: started by exec, in a group of its own, with a connection to us.

It is never forked: gRPC, and the threads of this process, would not survive that. It ends with us, by its lifeline.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, final

from umbel.simulation.spawn import die_with_parent, end_of, inherited, pair, unforked

_BOOT = "import sys; sys.path[:] = {path!r}; from {module} import main; main({connection}, {lifeline})"
_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # what libraries ask when they are loaded
_EASY_PREY = "500"  # when memory ends, the system is to take such a process rather than the one that has started it


@final
@dataclass(frozen=True, slots=True)
class Spawned:
    """A process; made by `spawn`.

    Attributes:
        process: as the system knows it.
        connection: a socket to it.
        lifeline: the end of a pipe that ends with us; a file descriptor.
        printed: the end of the pipe into which it prints; a file descriptor.
        end: becomes readable when it has ended.
    """

    process: subprocess.Popen[bytes]
    connection: socket.socket
    lifeline: int
    printed: int
    end: int | socket.socket

    @property
    def pid(self) -> int:
        """The number of the process, and of its group."""
        return self.process.pid

    def interrupt(self) -> None:
        """Have it raise KeyboardInterrupt, if it has not ended."""
        self._signal(os.kill, signal.SIGINT)

    def kill(self) -> None:
        """End it, and those that it has started, if it has not ended."""
        if sys.platform == "win32":  # which knows no groups of processes
            self.process.kill()
        else:
            self._signal(os.killpg, signal.SIGKILL)

    def _signal(self, send: Callable[[int, int], None], number: int) -> None:
        if self.process.returncode is None:  # else its number may be that of another process by now
            with suppress(ProcessLookupError, PermissionError):
                send(self.pid, number)

    def over(self) -> None:
        """It has ended: so do those that it has started; and there comes no more, whoever else has its end open."""
        self.kill()
        self.process.wait()
        if isinstance(self.end, socket.socket):
            self.end.close()
        else:
            os.close(self.end)
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


def spawn(module: str, environment: Mapping[str, str]) -> Spawned:
    """Start a process, in which ``main(connection, lifeline)`` of a module is called.

    Args:
        module: its name.
        environment: the variables that it starts with.

    Raises:
        OSError: the system cannot; nothing is left open.
    """
    with unforked(), ExitStack() as mine, ExitStack() as its:
        connection, other = pair()
        mine.callback(connection.close)
        its.callback(other.close)
        lifeline, ours = os.pipe()
        mine.callback(os.close, ours)
        its.callback(os.close, lifeline)
        printed, prints = os.pipe()
        mine.callback(os.close, printed)
        its.callback(os.close, prints)
        process = subprocess.Popen(
            [sys.executable, "-c", _boot(module, other.fileno(), lifeline)],
            stdin=subprocess.DEVNULL,
            stdout=prints,
            stderr=prints,
            env=environment,
            pass_fds=[other.fileno(), lifeline],
            start_new_session=True,
        )
        mine.callback(process.kill)
        end, _ = end_of(process)
        mine.pop_all()
        return Spawned(process, connection, ours, printed, end)


def _boot(module: str, connection: int, lifeline: int) -> str:
    path = [place for place in sys.path if place]
    return _BOOT.format(path=path, module=module, connection=connection, lifeline=inherited(lifeline))


def limits_of(threads: int) -> dict[str, str]:
    """The variables that have libraries compute with so many threads; 0: with as many as they choose."""
    return dict.fromkeys(_LIMITS, str(threads)) if threads else {}


# --- in the process itself -----------------------------------------------------------------------


def begun(connection: int, lifeline: int) -> socket.socket:
    """The connection to who has started this process: for its ``main``, before all else.

    Args:
        connection: its file descriptor.
        lifeline: that of a pipe that ends with who has started this.
    """
    for file in (connection, lifeline):
        os.set_inheritable(file, False)
    die_with_parent(lifeline)
    faulthandler.enable()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_EASY_PREY)
    return socket.socket(fileno=connection)


def flush() -> None:
    """Let leave what was printed."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # user code may have closed it
            stream.flush()


def leave() -> NoReturn:
    """End this process, though user code may have left threads behind."""
    flush()
    os._exit(0)


__all__ = ["Spawned", "begun", "flush", "leave", "limits_of", "spawn"]
