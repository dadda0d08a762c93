"""What happens in runs: kept in the store, and told at once to who watches. Lives in the event loop's thread."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, final

from umbel.store.sql import EventRow, ServerStore

logger = logging.getLogger("umbel")
_PASSING = frozenset({"exchange", "answers"})  # for who watches at that moment; there are too many to keep them
_PAUSE = 0.1  # seconds between two of these
_BEHIND = 1000  # events that a slow watcher may be behind; then it reads them from the store, as many at a time


@final
class Saying:
    """What a run says in its thread, on its way to the loop's. What passes goes at most each tenth of a second.

    To wake the loop costs both threads some time, and a run of small models has little else to do.

    Args:
        loop: whose thread hears it.
        hear: is told, there.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, hear: Callable[[str, Mapping[str, Any]], None]) -> None:
        self._loop, self._hear = loop, hear
        self._lock = threading.Lock()
        self._passing: dict[str, Mapping[str, Any]] = {}  # the last of each kind that was not told yet
        self._due = False  # will they be told soon?

    def __call__(self, kind: str, content: Mapping[str, Any]) -> None:
        """Say a kind of event, and what it holds; in the run's thread."""
        with self._lock:
            if kind in _PASSING:
                self._passing[kind] = content
                told, self._due = self._due, True
            else:
                told = False
        if told:
            return
        if kind in _PASSING:
            self._loop.call_soon_threadsafe(self._tell_passing)
        else:
            self._loop.call_soon_threadsafe(self._tell, kind, content)

    def _tell(self, kind: str, content: Mapping[str, Any]) -> None:
        self._catch_up()  # which was said before
        self._hear(kind, content)

    def _tell_passing(self) -> None:
        self._catch_up()
        self._loop.call_later(_PAUSE, self._rest)

    def _rest(self) -> None:
        with self._lock:
            self._due = bool(self._passing)
            due = self._due
        if due:
            self._tell_passing()

    def _catch_up(self) -> None:
        with self._lock:
            passing, self._passing = self._passing, {}
        for kind, content in passing.items():
            self._hear(kind, content)


@final
@dataclass(slots=True, eq=False)
class Watcher:
    """Somebody who follows a run.

    Attributes:
        news: is there something to say?
        events: what was kept since it has read the store.
        behind: it was too slow; it has to read the store again.
        passing: the last of each kind of event that is not kept.
        quiet: the loop's time before which no more of these are told.
        who: the person; "" where it is nobody in particular.
        left: whoever it is may see no more.
    """

    news: asyncio.Event = field(default_factory=asyncio.Event)
    events: deque[EventRow] = field(default_factory=deque)
    behind: bool = True
    passing: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    quiet: float = 0.0
    who: str = ""
    left: bool = False

    def leave(self) -> None:
        """End what it is told."""
        self.left = True
        self.news.set()


@final
class News:
    """The events of a server's runs.

    Args:
        store: keeps them.
        ongoing: may there be more of a run?
    """

    def __init__(self, store: ServerStore, ongoing: Callable[[str], bool]) -> None:
        self._store, self._ongoing = store, ongoing
        self._loop = asyncio.get_running_loop()
        self._watchers: dict[str, set[Watcher]] = {}
        self._unkept: Counter[str] = Counter()  # events on their way to the disk
        self._ending = False

    def say(self, run: str, kind: str, content: Mapping[str, Any]) -> None:
        """Something happened in a run."""
        if kind in _PASSING:
            for watcher in self._watchers.get(run, ()):
                self._pass_on(watcher, kind, content)
            return
        self._unkept[run] += 1
        now = time.time()

        def keep(done: Future[int]) -> None:
            self._loop.call_soon_threadsafe(self._kept, run, done, now, kind, content)

        self._store.event(run, kind, content).add_done_callback(keep)

    def _pass_on(self, watcher: Watcher, kind: str, content: Mapping[str, Any]) -> None:
        due = not watcher.passing
        watcher.passing[kind] = content
        if due:
            self._loop.call_at(max(watcher.quiet, self._loop.time()), watcher.news.set)

    def _kept(self, run: str, done: Future[int], now: float, kind: str, content: Mapping[str, Any]) -> None:
        self._unkept[run] -= 1
        if not self._unkept[run]:
            del self._unkept[run]
        if report_failed(done):
            return
        event = EventRow(number=done.result(), time=now, kind=kind, content=content)
        for watcher in self._watchers.get(run, ()):
            watcher.events.append(event)
            if len(watcher.events) > _BEHIND:
                watcher.events.clear()
                watcher.behind = True
        self.wake(run)

    def wake(self, run: str) -> None:
        """Let who watches look whether the run has ended."""
        for watcher in self._watchers.get(run, ()):
            watcher.news.set()

    def end(self) -> None:
        """The server ends: nobody watches any more."""
        self._ending = True
        for run in list(self._watchers):
            self.wake(run)

    def leave(self, who: str) -> None:
        """Somebody's token was revoked: they watch no more."""
        for watcher in [one for some in self._watchers.values() for one in some if one.who == who]:
            watcher.leave()

    async def watch(
        self, run: str, since: int, *, now: bool = False, who: str = "", until: float = 0.0
    ) -> AsyncIterator[EventRow]:
        """The events of a run after one, as they come, until it ends.

        Args:
            run: which.
            since: the number of the last event that is known; 0: none.
            now: end with what has happened so far.
            who: the person who watches; see `leave`.
            until: when their token ends, seconds since 1970; 0: never.
        """
        watcher = Watcher(who=who)
        leaving = self._loop.call_later(until - time.time(), watcher.leave) if until else None
        self._watchers.setdefault(run, set()).add(watcher)
        try:
            while True:
                watcher.news.clear()
                if watcher.left:
                    return
                over = not self._ongoing(run) and not self._unkept[run]
                async for event in self._after(run, since, watcher):
                    since = event.number
                    yield event
                if self._loop.time() >= watcher.quiet and watcher.passing:
                    passing, watcher.passing = watcher.passing, {}
                    watcher.quiet = self._loop.time() + _PAUSE
                    for kind, content in passing.items():
                        yield EventRow(number=since, time=time.time(), kind=kind, content=content)
                if over or now or self._ending:
                    return
                await watcher.news.wait()
        finally:
            if leaving is not None:
                leaving.cancel()
            self._watchers[run].discard(watcher)
            if not self._watchers[run]:
                del self._watchers[run]

    async def _after(self, run: str, since: int, watcher: Watcher) -> AsyncIterator[EventRow]:
        """What was kept after an event: at first, and for who is behind, from the store."""
        while watcher.behind:
            watcher.events.clear()  # what is kept from here on is in the store, or comes to these
            watcher.behind = False
            found = await asyncio.to_thread(self._store.events, run, since, _BEHIND)
            watcher.behind = watcher.behind or len(found) == _BEHIND
            for event in found:
                since = event.number
                yield event
        while watcher.events:
            event = watcher.events.popleft()
            if event.number > since:
                since = event.number
                yield event


def report_failed(done: Future[Any]) -> bool:
    """Could something not be written down? Then it is said in the log."""
    if done.cancelled():
        return True
    if (error := done.exception()) is not None:
        logger.error("not-kept: what happened in a run could not be written down: %s", error)
    return error is not None


__all__ = ["News", "Watcher", "report_failed"]
