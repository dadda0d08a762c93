"""All runs: which wait their turn, which are under way, and what becomes of them. Lives in the event loop's thread."""

from __future__ import annotations

import asyncio
import logging
import shutil
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, final

from umbel.engine.question import Question
from umbel.engine.submission import Submission
from umbel.errors import CorruptFile, FormatError, NotThere, Rejected, StoreError, UmbelError, UsageError
from umbel.server.answers import Answer
from umbel.server.childrun import ChildConductor, directory_of
from umbel.server.clock import ServerClock
from umbel.server.desk import Desk
from umbel.server.hub import Hub
from umbel.server.installed import Installed
from umbel.server.news import News, Saying, report_failed
from umbel.server.run import Conductor, Ended, submission_of
from umbel.server.unnamed import room_of
from umbel.server.wanted import Wanted
from umbel.server.whole import whole
from umbel.simulation.cpus import cores
from umbel.simulation.threads import large_arrays
from umbel.store.sql import RunRow, ServerStore
from umbel.store.sql.rows import plain
from umbel.store.sql.values import Status

logger = logging.getLogger("umbel")
AT_ONCE = 8  # runs under way at one time; each has a thread
UNENDED = ("queued", "running", "waiting")
_PRINTED = 8 << 20  # characters that the clients of a run may print into its events
_AGAIN = 10.0  # seconds after which the store is tried again, when a run cannot begin, or its end not be kept
_KEPT_WAITING = 10.0  # seconds that what a node says waits for its run, which goes on after a restart


@final
@dataclass(slots=True, eq=False)
class Active:
    """A run that is under way.

    Attributes:
        desk: its side of the network.
        task: ends when the run does.
        status: as people see it.
        stopped: somebody has stopped it: who.
        printed: characters that its clients have printed since it, or the server, began.
    """

    desk: Desk
    task: asyncio.Task[None]
    status: str = "running"
    stopped: str = ""
    printed: int = 0


@final
class Runs:
    """The runs of a server.

    Attributes:
        active: those that are under way.
        news: what happens in them.

    Args:
        store: keeps them.
        hub: the nodes.
        at_once: how many are under way at one time; the others wait in the order of their submission.
        installed: the apps whose code may run here.
    """

    def __init__(
        self, store: ServerStore, hub: Hub, *, at_once: int = AT_ONCE, installed: Installed | None = None
    ) -> None:
        self._store, self._hub, self._at_once = store, hub, at_once
        self._installed = installed or Installed()
        self._loop = asyncio.get_running_loop()
        self._clock = ServerClock()
        self.active: dict[str, Active] = {}
        self._queue: list[str] = []
        self.news = News(store, lambda run: run in self.active or run in self._queue)
        self._lent = ExitStack()  # what computing with models takes, as long as there are runs
        self._written: Future[RunRow] | None = None  # the last status
        self._later: asyncio.TimerHandle | None = None  # looks again whose turn it is
        self._started = self._ending = False
        self._closing = asyncio.Event()

    def start(self) -> None:
        """Go on with what an earlier process has left."""
        shutil.rmtree(directory_of(self._store), ignore_errors=True)
        waiting = sorted((run for run in self._store.runs(submissions=False) if run.status in UNENDED), key=_in_turn)
        self._queue.extend(run.id for run in waiting)
        self._next()
        self._started = True
        self._hub.changed()

    @whole
    async def submit(self, run: RunRow, blobs: Any) -> RunRow:
        """Take a run in; it begins when there is room."""
        kept = await asyncio.wrap_future(self._store.submit(run, blobs))
        if kept.status == "queued":
            self._enqueue(kept.id)
        return kept

    def _enqueue(self, run: str) -> None:
        """Let a run begin when there is room, if it is not under way or waits already; who follows it learns why."""
        if run in self.active or run in self._queue:
            return
        self._queue.append(run)
        self._next()
        if turn := self.turn(run):
            self.news.say(run, "status", {"status": "queued", "reason": turn})

    def turn(self, run: str) -> str:
        """Why a run has not begun, in words; "" if it does not wait for its turn."""
        if run not in self._queue:
            return ""
        return f"waits its turn: {len(self.active)} under way, {self._queue.index(run)} more before it"

    def _next(self) -> None:
        while self._queue and len(self.active) < self._at_once and not self._ending:
            try:
                self._begin_first()
            except StoreError as error:  # it waits on, and so do those behind it
                logger.warning("store-failed: run %s waits on: %s", self._queue[0][:8], error)
                if self._later is not None:
                    self._later.cancel()
                self._later = self._loop.call_later(_AGAIN, self._next)
                return

    def _begin_first(self) -> None:
        """Let the first that waits begin; or end it, if it can never begin.

        Raises:
            StoreError: what it begins with cannot be read now; it stays the first.
        """
        run = self._store.run(self._queue[0])
        try:
            self._begin(run)
            del self._queue[0]
        except Exception as error:  # this run ends here, and not those behind it
            if _may_pass(error):
                raise
            del self._queue[0]
            reason, code = _why_not(error, run)
            self._say(run.id, "status", {"status": "failed", "reason": reason})
            self._say(run.id, "end", {"status": "failed", "reason": reason, "code": code})

    def find(self, name: str) -> RunRow:
        """The run with this id, the only one whose id begins so, or the only one of this name.

        Raises:
            NotThere: there is none, or there are several.
        """
        found = self._store.run_ids(plain(name))
        if len(found) == 1:
            return self._store.run(found[0])
        if found:
            ids = ", ".join(id[:8] for id in found[:20])
            raise NotThere(f"{len(found)} runs are called {name[:80]!r}: {ids}", advice="give the id of one of them")
        raise NotThere(f"there is no run {name[:80]!r}", advice="umbel ls lists them")

    # --- a run's life ------------------------------------------------------------------------

    def _begin(self, run: RunRow) -> None:
        submission = submission_of(run, self._store)
        if not submission.main:
            submission.loop()  # can it be done?

        say = Saying(self._loop, partial(self._say, run.id))
        desk = Desk(
            run,
            Wanted.of(run),
            threads=submission.threads,
            store=self._store,
            hub=self._hub,
            loop=self._loop,
            now=self._clock.now,
            say=say,
        )
        if not self.active:
            self._lent.enter_context(large_arrays(cores()))
        task = self._loop.create_task(self._conduct(run, desk, submission, say), name=f"umbel-run-{run.id[:8]}")
        self.active[run.id] = Active(desk, task)
        self._say(run.id, "status", {"status": "running", "reason": ""})

    async def _conduct(self, run: RunRow, desk: Desk, submission: Submission, say: Callable[..., None]) -> None:
        conductor = self._conductor(run, desk, submission, say)
        ended = await _in_thread(f"umbel-run-{run.id[:8]}", conductor.conduct)
        await asyncio.sleep(0)  # what the thread has said last comes first
        stopped = self.active[run.id].stopped
        goes_on = self._ending and (ended.status == "stopped" or ended.code == StoreError.code)  # it waited no more
        reason = f"stopped by {stopped}" if ended.status == "stopped" and stopped else ended.reason
        if not goes_on:
            self._hub.end(run.id, ended.reason or "the run has ended")
            for failure in ended.failures:
                self._say(run.id, "failure", asdict(failure))
            goes_on = not await self._is_kept(run.id, ended.status, reason)
        del self.active[run.id]
        if not self.active:
            self._lent.close()
        if goes_on:
            self.news.wake(run.id)
            return  # when the server comes back; what nodes work on is not revoked
        self.news.say(run.id, "status", {"status": ended.status, "reason": reason})
        self.news.say(run.id, "end", {"status": ended.status, "reason": reason, "code": ended.code})
        self._next()

    async def _is_kept(self, run: str, status: Status, reason: str) -> bool:
        """Write down how a run has ended, without which it would seem to go on; False: the server ends before."""
        while True:
            kept = self._store.set_status(run, status, reason)
            await asyncio.gather(asyncio.wrap_future(kept), return_exceptions=True)
            if not report_failed(kept):
                return True
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), _AGAIN)
            if self._ending:
                return False

    def _conductor(
        self, run: RunRow, desk: Desk, submission: Submission, say: Callable[..., None]
    ) -> Conductor | ChildConductor:
        if not submission.main:
            return Conductor(run, submission, store=self._store, desk=desk, clock=self._clock, say=say)
        return ChildConductor(
            run,
            submission,
            store=self._store,
            desk=desk,
            clock=self._clock,
            say=say,
            installed=self._installed,
            loop=self._loop,
        )

    def _say(self, run: str, kind: str, content: Mapping[str, Any]) -> None:
        """Keep an event, and wake who watches."""
        active = self.active.get(run)
        if kind == "status":
            if active is not None:
                active.status = content["status"]
            self._written = self._store.set_status(run, content["status"], content["reason"])
            self._written.add_done_callback(report_failed)
        if active is not None and active.status == "waiting" and kind == "exchange":
            self._say(run, "status", {"status": "running", "reason": ""})
        self.news.say(run, kind, content)

    # --- what people ask ---------------------------------------------------------------------

    def check_stops(self, run: RunRow) -> None:
        """Refuse to stop what has ended.

        Raises:
            Rejected: so it has.
        """
        if run.id not in self.active and run.id not in self._queue:
            raise Rejected(f"run {run.id[:8]} is {run.status}", advice="only a run that has not ended can be stopped")

    async def stop(self, run: RunRow, who: str) -> RunRow:
        """End a run where it stands."""
        self.check_stops(run)
        active = self.active.get(run.id)
        if active is not None:
            active.stopped = who
            active.desk.interrupt("stopped")
            await asyncio.wait([active.task])
        else:
            self._queue.remove(run.id)
            self._say(run.id, "status", {"status": "stopped", "reason": f"stopped by {who}"})
            self._say(run.id, "end", {"status": "stopped", "reason": f"stopped by {who}"})
        if self._written is not None:
            await asyncio.wrap_future(self._written)  # so that who asks sees that it has stopped
        return self.find(run.id)

    @whole
    async def resume(self, run: RunRow, rounds: int, who: str) -> RunRow:
        """Go on with a run that has ended, with more rounds if it has finished."""
        if run.id in self.active or run.id in self._queue:
            raise Rejected(f"run {run.id[:8]} is {run.status}", advice="it need not be resumed")
        if rounds and rounds < run.round:
            raise Rejected(f"run {run.id[:8]} has done {run.round} rounds", advice="give more rounds than that")
        changed = self._store.set_status(run.id, "queued", "", rounds=rounds or None, by=who)
        kept = await asyncio.wrap_future(changed)
        self._enqueue(run.id)  # unless somebody else was quicker
        return kept

    # --- what nodes report -------------------------------------------------------------------

    def renamed(self, old: str, new: str) -> None:
        """A node is called otherwise now."""
        for active in self.active.values():
            active.desk.renamed(old, new)

    async def asked(self, run: str, sequence: int) -> Question | None:
        """The question of an open exchange; None: there is no such exchange, or no more."""

        def found() -> Question | None:
            active = self.active.get(run)
            question = active.desk.checking if active is not None else None
            return question if question is not None and question.sequence == sequence else None

        await self.gone_on(lambda: found() is not None)
        return found()

    async def gone_on(self, true: Callable[[], bool]) -> bool:
        """Is it true, or in a moment, when the runs have gone on that were under way when the server ended?"""
        deadline = self._loop.time() + _KEPT_WAITING
        while not true():
            left = deadline - self._loop.time()
            returning = not self._started or any(active.desk.returning for active in self.active.values())
            if left <= 0 or not returning:
                return False
            await self._hub.change(left)
        return True

    def room(self, client: str) -> int:
        """Bytes that a client's answers to what it is asked now may have together."""
        asking = [(self._hub.exchanges.get(run), active.desk.checking) for run, active in self.active.items()]
        return sum(room_of(question) for open, question in asking if open and question and open.awaits(client))

    def printed(self, run: str, client: str, round: int, text: str) -> None:
        """A client's code has printed this last; of a run that prints without end, what comes first is kept."""
        active = self.active.get(run)
        if active is None or active.printed > _PRINTED:
            return
        active.printed += len(text)
        self._say(run, "output", {"client": client, "round": round, "text": text})
        if active.printed > _PRINTED:
            self._say(run, "log", {"message": "clients print more than is kept here: their nodes' logs have all of it"})

    def arrived(self, run: str, sequence: int, answer: Answer) -> None:
        """A client's answer in an exchange is durable."""
        attempt = self._hub.answered(run, sequence, answer.client)
        active = self.active.get(run)
        if active is not None:
            active.desk.arrived(sequence, answer, attempt)

    async def close(self) -> None:
        """Let all runs stop where they stand; they go on when the server comes back."""
        self._ending = True
        self._closing.set()
        for active in self.active.values():
            active.desk.interrupt("the server ends")
        if self.active:
            await asyncio.wait([active.task for active in self.active.values()])
        self.news.end()


async def _in_thread(name: str, work: Callable[[], Ended]) -> Ended:
    """What work gives, done in a thread of its own: there may be more of them than a pool has."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Ended] = loop.create_future()

    def finish(ended: Ended) -> None:
        if not done.cancelled():
            done.set_result(ended)

    def do() -> None:
        loop.call_soon_threadsafe(finish, work())

    threading.Thread(target=do, name=name, daemon=True).start()
    return await done


def _may_pass(error: Exception) -> bool:
    """Is it the store that fails, and not what it has of the run?"""
    return isinstance(error, StoreError) and not isinstance(error, FormatError | CorruptFile)


def _why_not(error: Exception, run: RunRow) -> tuple[str, str]:
    """Why a run cannot begin, and the code of that."""
    if isinstance(error, UmbelError):
        return str(error), error.code
    logger.error("run-failed: %s", run.id, exc_info=error)
    return f"what was submitted cannot be made: {type(error).__name__}: {error}"[:1000], UsageError.code


def _in_turn(run: RunRow) -> tuple[bool, float]:
    return run.status == "queued", run.submitted


__all__ = ["AT_ONCE", "Active", "Runs"]
