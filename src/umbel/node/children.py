"""Processes that run the apps: started by exec, kept warm, watched, and gone with the node."""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from umbel.apps.ending import how_ended, was_killed, what_to_do
from umbel.apps.frames import Frame, Garbage, pack, read_frame
from umbel.apps.output import Output
from umbel.errors import AppError, UsageError
from umbel.node.memory import group_memory
from umbel.node.reading import in_words
from umbel.simulation.spawned import limits_of, spawn

_LOOK = 0.25  # seconds between two looks at the memory of an app that works
_MOMENT = 1.0  # seconds that a task has for ending by itself when it is stopped
_TO_START = 600.0  # seconds that importing an app may take
_TO_END = 2.0  # seconds in which the system tells that a process has ended whose files are closed
_CLOSED = (
    "the app's process closed its connection to the node, and was stopped\n"
    "  What to do: let the app's code close no file that it has not opened itself, as os.closerange does"
)


@final
class ChildDied(Exception):
    """The app's process ended, or said what makes no sense; its text is for people.

    Attributes:
        code: a stable word.
        output: the last of what it printed.
        retryable: was it killed from outside? As in a simulation, its task is done again then.
    """

    def __init__(self, message: str, *, code: str = "child-died", output: str = "", retryable: bool = False) -> None:
        super().__init__(message)
        self.code, self.output, self.retryable = code, output, retryable

    def while_loading(self, app: str) -> AppError:
        """What it means for the app that the process was to load."""
        return load_error(app, str(self), self.output)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """What a child is for.

    Attributes:
        source: the directory that holds the app's package.
        object: the app's object, as in "myfed:client".
        digest: the app's, hex.
        dataset: the data set's name.
        client: the client's name.
        labels: the client's labels.
        site: the data set's settings, with references to secrets.
        seed: of the run.
        threads: how many it computes with.
        devices: "auto", or a device's name.
        run_as: the user that it becomes; "": it stays what it is.
    """

    source: str
    object: str
    digest: str
    dataset: str
    client: str
    labels: Mapping[str, str]
    site: Mapping[str, Any]
    seed: int
    threads: int
    devices: str
    run_as: str

    @property
    def key(self) -> tuple[Any, ...]:
        """Whoever has the same can do each other's tasks."""
        return self.digest, self.object, self.dataset, self.client, self.seed, self.threads


def load_error(app: str, message: str, shown: str) -> AppError:
    """Why an app cannot be loaded; its advice stands at the end, where one looks for it.

    Args:
        app: its name.
        message: what happened, and perhaps what to do.
        shown: a traceback, or what it has printed.
    """
    what, _, advice = message.partition("\n  What to do: ")
    return AppError(f"the app {app!r} cannot be loaded: {what}\n{shown}".rstrip(), advice=advice)


@final
class Child:
    """One process.

    Args:
        begin: what it is for.
        directory: where it may write: files for the node in ``out``, temporary ones in ``scratch``.
        environment: its variables.
        log: is called with what it works on and each line that it prints.
        number: of the slot, for devices that are taken in turn.

    Attributes:
        loaded: is the app ready?
        handlers: what it can be asked then.
        out: where it leaves files.
        about: which run and round it works on, for the log.
        ended: is it gone?
        since: when it became idle.
    """

    def __init__(
        self,
        begin: Begin,
        directory: Path,
        *,
        environment: Mapping[str, str],
        log: Callable[[str, str], object],
        number: int = 0,
    ) -> None:
        self.begin, self.out, self._directory, self._number = begin, directory / "out", directory, number
        self.loaded, self.handlers = False, tuple[str, ...]()
        self.about = f"app {begin.object}"
        self.since, self.ended = time.monotonic(), asyncio.Event()
        try:
            for path in (directory, self.out, directory / "scratch"):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
                if begin.run_as:
                    _give(path, begin.run_as)
            self._its = spawn("umbel.node.child", {**environment, "PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1"})
        except (OSError, UsageError):
            _remove(directory)
            raise
        self.output = Output(self._its.printed, lambda line: log(self.about, line))
        asyncio.get_running_loop().add_reader(self._its.end, self._over)

    @property
    def pid(self) -> int:
        """The number of its process, and of its group."""
        return self._its.pid

    @property
    def is_alive(self) -> bool:
        """Has it not ended, as far as the system knows, even if this process has not heard of it yet?"""
        if self.ended.is_set():
            return False
        return not hasattr(os, "waitid") or os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def _over(self) -> None:
        """It has ended: so do those that it started."""
        if self.ended.is_set():
            return
        asyncio.get_running_loop().remove_reader(self._its.end)
        self._its.over()
        self.ended.set()

    async def ready(self, memory: int = 0) -> Frame:
        """Wait until the app is loaded; gives what it says of that.

        Args:
            memory: bytes of memory that this may take; 0: no limit.

        Raises:
            ChildDied: it ended before, or took more than it may.
        """
        self._reader, self._writer = await asyncio.open_unix_connection(sock=self._its.connection)
        b = self.begin
        scratch = str(self._directory / "scratch")
        header = {
            "source": b.source,
            "object": b.object,
            "client": b.client,
            "labels": dict(b.labels),
            "site": dict(b.site),
            "seed": b.seed,
            "threads": b.threads,
            "devices": b.devices,
            "number": self._number,
            "run_as": b.run_as,
            "scratch": scratch,
            "out": str(self.out),
        }
        frame = await self._ask(pack(header), Watch(seconds=_TO_START, memory=memory, loading=True))
        self.loaded = frame.header.get("is") == "ready"
        self.handlers = tuple(map(str, frame.header.get("handlers", ())))
        return frame

    async def do(self, header: Mapping[str, Any], body: bytes, watch: Watch) -> Frame:
        """Do a task; cancelling it stops the task, and the process if that does not help.

        Raises:
            ChildDied: the process ended, took more than it may, or said what makes no sense.
        """
        self.output.begin()
        return await self._ask(pack(header, body), watch)

    async def _ask(self, data: bytes, watch: Watch) -> Frame:
        answer = asyncio.ensure_future(self._exchanged(data))
        try:
            over = await watch.over(answer, self.pid)
            if over:
                answer.cancel()
                await self.kill()
                raise ChildDied(over, code="over-limit", output=self.output.tail())
            return answer.result()
        except asyncio.CancelledError:
            await self._stop(answer)
            raise
        except (EOFError, ConnectionError) as error:
            raise await self._death() from error
        except Garbage as error:
            await self.kill()
            raise ChildDied(
                f"the app's process wrote into the node's connection: {error}; it was stopped",
                output=self.output.tail(),
            ) from error

    async def _exchanged(self, data: bytes) -> Frame:
        self._writer.write(data)
        await self._writer.drain()
        return await read_frame(self._reader)

    async def _stop(self, answer: asyncio.Future[Frame]) -> None:
        """Interrupt the task; end the process if the task does not end within a moment."""
        self._its.interrupt()
        done, _ = await asyncio.wait([answer], timeout=_MOMENT)
        if not done or answer.cancelled() or answer.exception() is not None:
            answer.cancel()
            await self.kill()

    async def _death(self) -> ChildDied:
        """Why there comes no more from it: it has ended, or goes on and has closed the connection."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_TO_END):
                await self.ended.wait()
        if not self.ended.is_set():
            await self.kill()
            return ChildDied(_CLOSED, output=self.output.tail())
        status = self._its.process.returncode
        words = how_ended(status, "the app's process", "it had answered")
        words += f"\n  What to do: {what_to_do(status)}"
        return ChildDied(words, output=self.output.tail(), retryable=was_killed(status))

    def clear(self) -> None:
        """Remove files that it has left for the node, and are not needed."""
        for path in self.out.iterdir():
            with suppress(OSError):
                path.unlink()

    async def kill(self) -> None:
        """End the process and those that it started, if it has not ended."""
        self._its.kill()
        await self.ended.wait()

    async def close(self) -> None:
        """End the process, and remove what it has left."""
        await self.kill()
        if hasattr(self, "_writer"):
            self._writer.close()
            with suppress(OSError):
                await self._writer.wait_closed()
        else:
            self._its.connection.close()
        self.output.close()
        os.close(self._its.lifeline)
        await asyncio.to_thread(_remove, self._directory)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What a task may take. 0: no limit.

    Attributes:
        seconds: of time.
        memory: bytes of memory of the group of processes.
        loading: is it the app that is loaded, and no task?
    """

    seconds: float = 0.0
    memory: int = 0
    loading: bool = False

    async def over(self, answer: asyncio.Future[Frame], group: int) -> str:
        """Wait for the answer; says what was exceeded, if anything was."""
        end = time.monotonic() + self.seconds if self.seconds else math.inf
        limited, look = bool(self.seconds or self.memory), _LOOK
        while not answer.done():
            left = max(0.0, end - time.monotonic())
            await asyncio.wait([answer], timeout=min(left, look if self.memory else math.inf) if limited else None)
            if answer.done():
                break
            if time.monotonic() >= end:
                return self._too_long()
            since = time.monotonic()
            if self.memory and (taken := group_memory(group, most=self.memory)) > self.memory:
                return self._too_much(taken)
            look = max(_LOOK, 10 * (time.monotonic() - since))  # of many large processes it takes a while
        return ""

    def _too_long(self) -> str:
        if self.loading:
            return (
                f"loading the app took more than {self.seconds:g} seconds and was stopped\n"
                "  What to do: let its modules do less when they are imported; @client.setup may take longer"
            )
        return (
            f"the task took more than {self.seconds:g} seconds and was stopped\n"
            "  What to do: raise max_seconds in [limits] of node.toml, or let the task do less"
        )

    def _too_much(self, taken: int) -> str:
        what, less = ("loading the app", "import less") if self.loading else ("the task", "use smaller batches")
        return (
            f"{what} took more than {in_words(self.memory)} of memory ({in_words(taken)}) and was stopped\n"
            f"  What to do: raise max_memory in [limits] of node.toml, or {less}"
        )


def _give(path: Path, user: str) -> None:
    """Let another user of the system own a directory."""
    try:
        shutil.chown(path, user)
    except (LookupError, OSError) as error:
        raise UsageError(
            f"the app cannot run as user {user!r}: {error}",
            advice="name a user of this system in run_as, and start the node as root",
        ) from error


def _remove(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)


@final
class Children:
    """The processes of one node.

    Args:
        directory: below which each has its own.
        environment: the variables that they start with.
        warm: how many stay when they have nothing to do.
        idle: seconds after which one that has nothing to do ends.
        log: is called with what a child works on and a line that it has printed.
    """

    def __init__(
        self,
        directory: Path,
        *,
        environment: Mapping[str, str],
        warm: int,
        idle: float,
        log: Callable[[str, str], object],
    ) -> None:
        self._directory, self._environment = directory, dict(environment)
        self._warm, self._idle, self._log = warm, idle, log
        self._resting: list[Child] = []  # the one that worked last is the last
        self._working: set[Child] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._count = 0
        _remove(directory)

    @asynccontextmanager
    async def child(self, begin: Begin) -> AsyncIterator[Child]:
        """A process for a task: one that waits, or a new one, whose app is not loaded yet."""
        child = self._rested(begin)
        if child is None:
            child = self._new(begin)
        self._working.add(child)
        try:
            yield child
        finally:
            self._working.discard(child)
            if child.ended.is_set() or not child.loaded:
                await self._end([child])
            else:
                child.since = time.monotonic()
                self._resting.append(child)
                await self.trim()

    def _rested(self, begin: Begin) -> Child | None:
        for child in reversed(self._resting):
            if child.begin.key == begin.key and child.is_alive:
                self._resting.remove(child)
                return child
        return None

    def _new(self, begin: Begin) -> Child:
        self._count += 1
        return Child(
            begin,
            self._directory / f"{self._count:06d}",
            environment={**self._environment, **limits_of(begin.threads)},
            log=self._log,
            number=len(self._working),
        )

    async def trim(self) -> None:
        """End those that have waited too long, or are too many, and clear up after those that have ended."""
        now = time.monotonic()
        stay = [c for c in self._resting if not c.ended.is_set() and now - c.since < self._idle]
        stay = stay[max(0, len(stay) - self._warm) :]
        gone = [c for c in self._resting if c not in stay]
        self._resting = stay
        await self._end(gone)

    async def _end(self, children: Sequence[Child]) -> None:
        """End processes, and clear up after them, though the task that waits for that is revoked meanwhile."""
        ending = [asyncio.create_task(child.close()) for child in children]
        self._ending.update(ending)
        for task in ending:
            task.add_done_callback(self._ending.discard)
        for task in ending:
            await asyncio.shield(task)

    async def close(self) -> None:
        """End all that have nothing to do."""
        gone, self._resting = self._resting, []
        await self._end(gone)
        for task in list(self._ending):
            await asyncio.shield(task)


__all__ = ["Begin", "Child", "ChildDied", "Children", "Watch", "load_error"]
