"""The process of a run with code of the user's: started by exec, watched, and gone with the server."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar, final

from umbel.apps.ending import how_ended
from umbel.apps.output import Output
from umbel.simulation.spawned import limits_of, spawn
from umbel.store.durable import readable_errors

T = TypeVar("T")
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
        try:
            self._its = spawn("umbel.server.child", {**os.environ, **limits_of(threads)})
        except OSError:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        self.connection = self._its.connection
        self._output: Output = self._in_loop(self._watch(print_line))

    def _in_loop(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _watch(self, print_line: Callable[[str], object]) -> Output:
        self._loop.add_reader(self._its.end, self._over)
        return Output(self._its.printed, print_line, most=_MOST_LINES)

    def _over(self) -> None:
        if not self._ended.is_set():
            self._loop.remove_reader(self._its.end)
            self._its.over()
            self._ended.set()

    def interrupt(self) -> None:
        """Have the run end where it stands; end the process if that takes a moment. In the loop's thread."""
        self._its.interrupt()
        self.end_soon()

    def end_soon(self) -> None:
        """End the process if it has not ended in a moment. In the loop's thread."""
        self._loop.call_later(_MOMENT, self.kill)

    def kill(self) -> None:
        """End the process and those that it started, if it has not ended."""
        self._its.kill()

    def how(self) -> str:
        """How it ended, in words; waits for that, after the other end of the connection was closed."""
        if not self._ended.wait(_MOMENT):
            self.kill()
            return "the run's process has closed its connection to the server; it was ended"
        return how_ended(self._its.process.returncode, "the run's process", "main had returned")

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
        os.close(self._its.lifeline)
        shutil.rmtree(self._directory, ignore_errors=True)


__all__ = ["RunProcess"]
