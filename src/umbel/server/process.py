"""The process of a run with code of the user's: started by exec, watched, and gone with the server."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, final

from umbel.apps.ending import how_ended
from umbel.apps.output import Output
from umbel.simulation.spawn import end_of, inherited, pair, unforked
from umbel.store.durable import readable_errors

T = TypeVar("T")
_BOOT = (
    "import os, sys; os.environ.update({limits!r}); sys.path[:] = {path!r}; "
    "from umbel.server.child import main; main({connection}, {lifeline})"
)
_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # what libraries ask when they are loaded
_MOMENT = 1.0  # seconds that a run has for ending by itself when it is stopped; a server is to end within five
_MOST_LINES = 5000  # that a run's process may print into the run's events


@final
class RunProcess:
    """One process; made and used in the run's own thread.

    Args:
        loop: the event loop, which watches it.
        directory: where it may write; removed when it is closed.
        threads: how many it computes with.
        print_line: is called with each line that it prints, in the loop's thread.

    Attributes:
        connection: a socket to it.
        handed: the directory in which it hands large arrays over.
        scratch: its working directory.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, directory: Path, *, threads: int, print_line: Callable[[str], object]
    ) -> None:
        self._loop, self._directory, self._ended = loop, directory, threading.Event()
        self.handed, self.scratch = directory / "handed", directory / "scratch"
        for path in (self.handed, self.scratch):
            with readable_errors(path):
                path.mkdir(mode=0o700, parents=True)
        with unforked():
            printed = self._start(threads)
        self._end, _ = end_of(self._process)
        self._output: Output = self._in_loop(self._watch(printed, print_line))

    def _start(self, threads: int) -> int:
        self.connection, its = pair()
        lifeline, self._lifeline = os.pipe()
        printed, prints = os.pipe()
        boot = _BOOT.format(
            limits=dict.fromkeys(_LIMITS, str(threads)),
            path=[place for place in sys.path if place],
            connection=its.fileno(),
            lifeline=inherited(lifeline),
        )
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", boot],
                stdin=subprocess.DEVNULL,
                stdout=prints,
                stderr=prints,
                pass_fds=[its.fileno(), lifeline],
                start_new_session=True,
            )
        finally:
            for file in (lifeline, prints):
                os.close(file)
            its.close()
        return printed

    def _in_loop(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _watch(self, printed: int, print_line: Callable[[str], object]) -> Output:
        self._loop.add_reader(self._end, self._over)
        return Output(printed, print_line, most=_MOST_LINES)

    def _over(self) -> None:
        """It has ended: so do those that it started."""
        if self._ended.is_set():
            return
        self._signal_group(signal.SIGKILL)
        self._loop.remove_reader(self._end)
        self._process.wait()
        if isinstance(self._end, socket.socket):
            self._end.close()
        else:
            os.close(self._end)
        with suppress(OSError):  # whoever else has its end open says no more
            self.connection.shutdown(socket.SHUT_RDWR)
        self._ended.set()

    @property
    def pid(self) -> int:
        """The number of the process, and of its group."""
        return self._process.pid

    def _signal_group(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def interrupt(self) -> None:
        """Have the run end where it stands; end the process if that takes a moment. In the loop's thread."""
        if not self._ended.is_set():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self._process.pid, signal.SIGINT)
            self.end_soon()

    def end_soon(self) -> None:
        """End the process if it has not ended in a moment. In the loop's thread."""
        self._loop.call_later(_MOMENT, self.kill)

    def kill(self) -> None:
        """End the process and those that it started, if it has not ended."""
        if not self._ended.is_set():
            self._signal_group(signal.SIGKILL)

    def how(self) -> str:
        """How it ended, in words; waits for that, after the other end of the connection was closed."""
        if not self._ended.wait(_MOMENT):
            self.kill()
            return "the run's process has closed its connection to the server; it was ended"
        return how_ended(self._process.returncode, "the run's process", "main had returned")

    def printed(self) -> str:
        """The last of what it has printed."""

        async def tail() -> str:
            return self._output.tail()

        return self._in_loop(tail())

    def close(self) -> None:
        """End the process, and remove what it has left."""
        self.kill()
        self._ended.wait()

        async def close() -> None:
            self._output.tail()
            self._output.close()

        self._in_loop(close())
        self.connection.close()
        os.close(self._lifeline)
        shutil.rmtree(self._directory, ignore_errors=True)


__all__ = ["RunProcess"]
