"""A run's side of the network: who is asked, who has answered. Lives in the run's own thread.

Whoever runs the engine's loop is a plain function that waits; the hub lives in the event loop. They meet in two places:
calls into the loop, and a queue of events out of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import queue
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import asdict
from typing import Any, TypeVar, final

from umbel.engine.exchange import Arrived, Event, Failed, Lost
from umbel.engine.question import Question
from umbel.errors import DiskFull, Failure
from umbel.sample import Population
from umbel.server.answers import Answer, answer_of
from umbel.server.hub import Hub, OpenExchange
from umbel.server.wanted import Wanted
from umbel.store.sql import Kept, RunRow, ServerStore
from umbel.store.sql import OpenExchange as OpenRow
from umbel.wire import Task, TaskId

T = TypeVar("T")
_SPARE = 64 << 20  # bytes that stay free on the disk, for the database and its log
_ATTEMPTS_SHOWN = 3


@final
class Interrupted(Exception):
    """The run is to stop where it stands; what was committed is kept.

    Attributes:
        reason: why.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@final
class Desk:
    """Has nodes do a run's tasks, and keeps their answers until somebody folds them.

    Args:
        run: which run.
        wanted: which nodes it may ask.
        threads: how many each client computes with.
        store: of the server.
        hub: the nodes; touched in the loop's thread only.
        loop: the event loop.
        now: seconds since 1970.
        say: tells people what happens: a kind of event, and what it holds.

    Attributes:
        counted: whose new state counts since the last close.
        checking: the question that answers are checked against; None: there is no open exchange.
        begun: has this process opened an exchange of the run?
        waited: seconds.
        interrupted: why the run is to stop; None: it is not.
        at_interrupt: called in the loop's thread when it is to stop.
    """

    def __init__(
        self,
        run: RunRow,
        wanted: Wanted,
        *,
        threads: int,
        store: ServerStore,
        hub: Hub,
        loop: asyncio.AbstractEventLoop,
        now: Callable[[], float],
        say: Callable[[str, Mapping[str, Any]], None],
    ) -> None:
        self._run, self._wanted, self._threads = run, wanted, threads
        self._store, self._hub, self._loop, self._now, self._say = store, hub, loop, now, say
        self._events: queue.SimpleQueue[Event | Interrupted] = queue.SimpleQueue()
        self._calling: Future[Any] | None = None
        self._reopened = deque(store.unclosed(run.id))  # what an earlier process has left open, in order
        self._gathered = "{}"
        self._answers: dict[str, Answer] = {}
        self._stored: dict[str, Answer] = {}  # of this exchange, from before this process
        self._sequence = 0
        self._begin_with = dict(store.states(run.id))  # by client, the exchange whose state it begins with
        self.counted: tuple[str, ...] = ()
        self.checking: Question | None = None
        self.begun = False
        self.waited = 0.0
        self.interrupted: Interrupted | None = None
        self.at_interrupt: Callable[[], object] = lambda: None

    # --- calls from the loop's thread --------------------------------------------------------

    def interrupt(self, reason: str) -> None:
        """Let the run end where it waits next."""
        self.interrupted = Interrupted(reason)
        self._events.put(self.interrupted)
        if (calling := self._calling) is not None:
            calling.cancel()
        self.at_interrupt()

    def arrived(self, answer: Answer, attempt: int) -> None:
        """A client's answer is durable; it counts for this attempt."""
        self._take(answer, attempt)

    # --- into the loop's thread --------------------------------------------------------------

    def _call(self, work: Callable[..., T], *args: Any) -> T:
        calling: Future[T] = Future()

        def do() -> None:
            if calling.set_running_or_notify_cancel():
                try:
                    calling.set_result(work(*args))
                except Exception as error:  # noqa: BLE001  # the run's own thread raises it
                    calling.set_exception(error)

        self._loop.call_soon_threadsafe(do)
        return self._result(calling)

    def _await(self, work: Coroutine[Any, Any, T]) -> T:
        return self._result(asyncio.run_coroutine_threadsafe(work, self._loop))

    def _result(self, calling: Future[T]) -> T:
        self._calling = calling
        if self.interrupted is not None:  # it may have come before there was a call to cancel
            calling.cancel()
        try:
            return calling.result()
        except (CancelledError, asyncio.CancelledError):
            self._check()
            raise
        finally:
            self._calling = None

    def _check(self) -> None:
        if self.interrupted is not None:
            raise self.interrupted

    # --- from the run's thread ---------------------------------------------------------------

    def population(self, at_least: int, wait: float) -> Population:
        """Who is there; the same as before, if an exchange goes on that an earlier process opened."""
        if self._reopened:
            self._gathered = self._reopened[0].population
            known = json.loads(self._gathered)
            return Population(tuple(known), {name: labels for name, labels in known.items() if labels})
        found = self._await(self._hub.gather(self._wanted, at_least, wait, self._waits))
        self._gathered = json.dumps({name: dict(found.labels.get(name, {})) for name in found.names})
        return found

    def _waits(self, reason: str, left: float) -> None:
        until = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(time.time() + left))
        self._say("status", {"status": "waiting", "reason": f"{reason}; until {until}"})

    def open(self, question: Question, template: Task, blobs: Sequence[Kept]) -> float:
        """Begin an exchange, or go on with one; gives when it was opened.

        Args:
            question: what is asked, as far as answers are checked against it.
            template: what all its tasks have in common, as `umbel.link.tasks.task_of` makes it.
            blobs: that it names; they are kept.

        Raises:
            DiskFull: there is no room for the answers.
        """
        self._fill(template, question.sequence)
        self._check_room(question)
        mine = OpenRow(
            sequence=question.sequence,
            digest=hashlib.sha256(template.SerializeToString(deterministic=True)).hexdigest(),
            opened=self._now(),
            population=self._gathered,
            roster="[]",
        )
        opened = self._store.open_exchange(self._run.id, mine, blobs).result()
        if self._reopened and self._reopened.popleft().sequence != question.sequence:
            self._reopened.clear()  # main asks for something else now
        self._sequence, self.counted = question.sequence, ()
        self._answers.clear()
        self._events = queue.SimpleQueue()
        if self.interrupted is not None:
            self._events.put(self.interrupted)
        rows = self._store.answers(self._run.id, question.sequence) if opened is not mine else ()
        self._stored = {row.client: answer_of(row, question, self._store.blobs.fetch) for row in rows}
        wheel = [self._wanted.app.wheel.digest.hex()] if self._wanted.brings else []
        self._hub_open(question, template, frozenset([*(kept.digest for kept in blobs), *wheel]))
        return opened.opened

    def _fill(self, task: Task, sequence: int) -> None:
        task.id.CopyFrom(TaskId(run=self._run.id, exchange=sequence))
        task.run_name, task.submitter, task.dataset = self._run.name, self._run.owner, self._run.dataset
        task.app.CopyFrom(self._wanted.app)
        task.threads = self._threads

    def _check_room(self, question: Question) -> None:
        """Is there room for what the nodes will send?"""
        size = question.model.nbytes if question.model is not None and question.kind != "evaluate" else 0
        asked = len(json.loads(self._gathered)) or 1
        need, free = size * asked + _SPARE, self._store.blobs.free()
        if free < need:
            raise DiskFull(
                f"round {question.round} does not open: {asked} answers of {size:,} bytes may come, and {free:,} bytes "
                "are free on the server's disk",
                advice="free some space; then: umbel resume " + self._run.id[:8],
            )

    def _hub_open(self, question: Question, template: Task, blobs: frozenset[str]) -> None:
        states = dict(self._begin_with)

        def task(client: str, attempt: int) -> Task:
            made = Task()
            made.CopyFrom(template)
            made.id.client, made.id.attempt = client, attempt
            made.state = states.get(client, 0)
            return made

        label = question.round, question.label
        exchange = OpenExchange(self._run.id, question.sequence, label, task, self._events.put, blobs)
        self.checking, self.begun = question, True
        self._call(self._hub.open, exchange)

    def lease(self, tasks: Sequence[tuple[str, int]]) -> None:
        """Ask these clients; whose answer is there already has answered."""
        ask: list[tuple[str, int]] = []
        for client, attempt in tasks:
            known = self._stored.get(client)
            if known is not None and (known.attempt >= attempt or not known.retryable):
                self._take(known, attempt)
            else:
                ask.append((client, attempt))
        if ask:
            self._call(self._hub.lease, self._run.id, ask)

    def _take(self, answer: Answer, attempt: int) -> None:
        if isinstance(answer.done, Failure):
            kind = Lost if answer.retryable else Failed
            self._events.put(kind(answer.client, attempt, answer.done))
            return
        self._answers[answer.client] = answer
        self._events.put(Arrived([(answer.client, attempt)]))

    def wait(self, until: float) -> list[Event]:
        """Wait for what happens."""
        begin = time.perf_counter()
        events: list[Event] = []
        try:
            self._add(events, self._events.get(timeout=max(0.0, until - self._now())))
            while True:
                self._add(events, self._events.get_nowait())
        except queue.Empty:
            return events
        finally:
            self.waited += time.perf_counter() - begin

    def _add(self, events: list[Event], event: Event | Interrupted) -> None:
        if isinstance(event, Interrupted):
            raise event
        events.append(event)
        if isinstance(event, Lost) and event.attempt < _ATTEMPTS_SHOWN:
            self._say("failure", {**asdict(event.failure), "again": True})

    def take(self, client: str) -> Answer:
        """A client's answer, for who folds it."""
        return self._answers.pop(client)

    def drop(self, client: str) -> None:
        """Throw an answer away."""
        self._answers.pop(client, None)

    def revoke(self, clients: Sequence[str]) -> None:
        """Tell these clients to stop."""
        self._call(self._hub.revoke, self._run.id, clients, "the round went on without this answer")

    def close(self) -> None:
        """The exchange is over."""
        self.checking = None
        self._call(self._hub.close, self._run.id, "the round is over")
        self._stored.clear()
        self._answers.clear()

    def count(self, clients: Sequence[str]) -> None:
        """The new states of these count."""
        self.counted = tuple(clients)
        self._begin_with |= dict.fromkeys(clients, self._sequence)


__all__ = ["Desk", "Interrupted"]
