"""Writes beside the run: in one thread, one piece of work after the other."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from threading import Event
from typing import final

GoOn = Callable[[], None]
Work = Callable[[GoOn], None]


@final
class Dropped(Exception):
    """What is being written is no longer needed; ends the work and is seen by nobody."""


@final
class Writer:
    """Does one piece of work while its caller goes on; the thread begins with the first.

    Whoever begins another waits for the one before. So an error of it is raised there; and again each time, for
    what comes later builds on what was not written.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="umbel-store")
        self._begun: Future[None] | None = None
        self._unwanted, self._awaited = Event(), Event()

    def begin(self, work: Work, *, delay: float = 0.0, needed: bool = False) -> None:
        """Begin; the work before it is over, as `wait` says.

        Args:
            work: is called with a function that it may call where it can be broken off: if somebody waits who does
                not need the work any more, that raises `Dropped`.
            delay: begin after so many seconds, or when somebody waits: for work that may soon not be needed any more.
            needed: begin then even if who waits does not need it.
        """
        unwanted, awaited = self._unwanted, self._awaited = Event(), Event()
        self._begun = self._threads.submit(_do, work, Event() if needed else unwanted, awaited, delay)

    def wait(self, *, drop: bool = False) -> None:
        """Wait until the work is over, and raise its error, if it had one.

        Args:
            drop: the work need not be done any more, if it can be broken off.
        """
        if drop:
            self._unwanted.set()
        self._awaited.set()
        if self._begun is not None:
            self._begun.result()

    def close(self) -> None:
        """Wait, and end the thread."""
        self._awaited.set()
        self._threads.shutdown()


def _do(work: Work, unwanted: Event, awaited: Event, delay: float) -> None:
    def go_on() -> None:
        if unwanted.is_set():
            raise Dropped

    with suppress(Dropped):
        if delay:
            awaited.wait(delay)
            go_on()
        work(go_on)


__all__ = ["Dropped", "GoOn", "Work", "Writer"]
