"""A run's side of the network: what the engine asks for, done with nodes. Lives in the run's own thread.

The engine's loop is a plain function that waits; the hub lives in the event loop. They meet in two places: calls into
the loop, and a queue of events out of it.
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

from umbel.arrays import Arrays
from umbel.engine.exchange import Arrived, Close, Event, Failed, Lost
from umbel.engine.folding import Answered, Folding
from umbel.engine.question import Question
from umbel.engine.reduction import Reduced
from umbel.errors import DiskFull, Failure
from umbel.link.tasks import task_of
from umbel.sample import Population
from umbel.server.answers import Answer, answer_of
from umbel.server.hub import Hub, OpenExchange
from umbel.server.wanted import Wanted
from umbel.store.sql import Kept, RunRow, ServerStore
from umbel.store.sql import OpenExchange as OpenRow
from umbel.wire import Blob, Task, TaskId

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
class ServerClock:
    """Seconds since 1970 that never go back, so that a deadline outlives this process."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        """The time."""
        return time.monotonic() + self._offset


@final
class _Counted:
    """Takes note of whose new state counts; the states themselves lie at the nodes."""

    def __init__(self) -> None:
        self.clients: list[str] = []

    def stateful(self, clients: Sequence[str]) -> frozenset[str]:
        """Nobody, as far as this server holds states."""
        del clients
        return frozenset()

    def read(self, client: str) -> Mapping[str, Any]:
        """None of it lies here."""
        del client
        return {}

    def write(self, sequence: int, states: Mapping[str, Mapping[str, Any]]) -> None:
        """Take note."""
        del sequence
        self.clients = sorted(states)


@final
class NetworkRunner:
    """A `Runner` of the engine whose clients are nodes.

    Args:
        run: which run.
        wanted: which nodes it may ask.
        threads: how many each client computes with.
        store: of the server.
        hub: the nodes; touched in the loop's thread only.
        loop: the event loop.
        say: tells people what happens: a kind of event, and what it holds.

    Attributes:
        counted: whose new state counts since the last close.
        checking: the question that answers are checked against; None: there is no open exchange.
        begun: has this process opened an exchange of the run?
    """

    punctual = False

    def __init__(
        self,
        run: RunRow,
        wanted: Wanted,
        *,
        threads: int,
        store: ServerStore,
        hub: Hub,
        loop: asyncio.AbstractEventLoop,
        clock: ServerClock,
        say: Callable[[str, Mapping[str, Any]], None],
    ) -> None:
        self._run, self._wanted, self._threads = run, wanted, threads
        self._store, self._hub, self._loop, self._clock, self._say = store, hub, loop, clock, say
        self._events: queue.SimpleQueue[Event | Interrupted] = queue.SimpleQueue()
        self._interrupted: Interrupted | None = None
        self._calling: Future[Any] | None = None
        self._reopened = deque(store.unclosed(run.id))  # what an earlier process has left open, in order
        self._gathered = "{}"
        self._answers: dict[str, Answer] = {}
        self._stored: dict[str, Answer] = {}  # of this exchange, from before this process
        self._question: Question
        self._folding: Folding
        self._states = _Counted()
        self._begin_with = dict(store.states(run.id))  # by client, the exchange whose state it begins with
        self._spent = {"training": 0.0, "waiting": 0.0, "folding": 0.0}
        self.checking: Question | None = None
        self.begun = False

    @property
    def spent(self) -> Mapping[str, float]:
        """Seconds by what they went to."""
        return self._spent

    @property
    def counted(self) -> Sequence[str]:
        """Whose new state counts since the last close."""
        return tuple(self._states.clients)

    # --- calls from the loop's thread --------------------------------------------------------

    def interrupt(self, reason: str) -> None:
        """Let the run end where it waits next."""
        self._interrupted = Interrupted(reason)
        self._events.put(self._interrupted)
        if (calling := self._calling) is not None:
            calling.cancel()

    def arrived(self, answer: Answer, attempt: int) -> None:
        """A client's answer is durable; it counts for this attempt."""
        self._take(answer, attempt)

    # --- into the loop's thread --------------------------------------------------------------

    def _call(self, work: Callable[..., T], *args: Any) -> T:
        async def do() -> T:
            return work(*args)

        return self._await(do())

    def _await(self, work: Coroutine[Any, Any, T]) -> T:
        calling = asyncio.run_coroutine_threadsafe(work, self._loop)
        self._calling = calling
        if self._interrupted is not None:  # it may have come before there was a call to cancel
            calling.cancel()
        try:
            return calling.result()
        except (CancelledError, asyncio.CancelledError):
            self._check()
            raise
        finally:
            self._calling = None

    def _check(self) -> None:
        if self._interrupted is not None:
            raise self._interrupted

    # --- the engine's runner -----------------------------------------------------------------

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

    def open(self, question: Question) -> float | None:
        """Begin an exchange, or go on with one."""
        blobs: list[Kept] = []
        template = self._template(question, blobs)
        self._check_room(question)
        mine = OpenRow(
            sequence=question.sequence,
            digest=hashlib.sha256(template.SerializeToString(deterministic=True)).hexdigest(),
            opened=self._clock.now(),
            population=self._gathered,
            roster="[]",
        )
        opened = self._store.open_exchange(self._run.id, mine, blobs).result()
        if self._reopened and self._reopened.popleft().sequence != question.sequence:
            self._reopened.clear()  # main asks for something else now
        self._question, self._folding, self._states = question, Folding(question, self._states_of()), self._states
        self._answers.clear()
        self._events = queue.SimpleQueue()
        if self._interrupted is not None:
            self._events.put(self._interrupted)
        rows = self._store.answers(self._run.id, question.sequence) if opened is not mine else ()
        self._stored = {row.client: answer_of(row, question, self._store.blobs.fetch) for row in rows}
        wheel = [self._wanted.app.wheel.digest.hex()] if self._wanted.brings else []
        self._hub_open(question, template, frozenset([*(kept.digest for kept in blobs), *wheel]))
        return opened.opened

    def _states_of(self) -> _Counted:
        self._states = _Counted()
        return self._states

    def _template(self, question: Question, blobs: list[Kept]) -> Task:
        def place(arrays: Arrays) -> Blob:
            kept = self._store.blobs.keep(arrays, sync=False)
            blobs.append(kept)
            content = {} if kept.content is None else {"content": kept.content}
            return Blob(digest=bytes.fromhex(kept.digest), size=kept.size, **content)

        task = task_of(question, place)
        task.id.CopyFrom(TaskId(run=self._run.id, exchange=question.sequence))
        task.run_name, task.submitter, task.dataset = self._run.name, self._run.owner, self._run.dataset
        task.app.CopyFrom(self._wanted.app)
        task.threads = self._threads
        return task

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

    def wait(self, until: float) -> Sequence[Event]:
        """Wait for what happens."""
        begin = time.perf_counter()
        events: list[Event] = []
        try:
            self._add(events, self._events.get(timeout=max(0.0, until - self._clock.now())))
            while True:
                self._add(events, self._events.get_nowait())
        except queue.Empty:
            return events
        finally:
            self._spent["waiting"] += time.perf_counter() - begin

    def _add(self, events: list[Event], event: Event | Interrupted) -> None:
        if isinstance(event, Interrupted):
            raise event
        events.append(event)
        if isinstance(event, Lost) and event.attempt < _ATTEMPTS_SHOWN:
            self._say("failure", {**asdict(event.failure), "again": True})

    def fold(self, clients: Sequence[tuple[str, int, int]]) -> Sequence[Failed]:
        """Fold the answers of these clients."""
        begin = time.perf_counter()
        answered = []
        for client, attempt, place in clients:
            answer = self._answers.pop(client)
            assert not isinstance(answer.done, Failure)
            answered.append(Answered(client, attempt, place, answer.done, {} if answer.state else None))
        refused = self._folding.fold(answered)
        self._spent["folding"] += time.perf_counter() - begin
        return refused

    def drop(self, client: str, attempt: int) -> None:
        """Throw an answer away."""
        del attempt
        self._answers.pop(client, None)

    def revoke(self, clients: Sequence[str]) -> None:
        """Tell these clients to stop."""
        self._call(self._hub.revoke, self._run.id, clients, "the round went on without this answer")

    def close(self, close: Close) -> Reduced:
        """The exchange is over."""
        self.checking = None
        self._call(self._hub.close, self._run.id, "the round is over")
        self._stored.clear()
        self._answers.clear()
        reduced = self._folding.close(close)
        self._begin_with |= dict.fromkeys(self._states.clients, self._question.sequence)
        return reduced


__all__ = ["Interrupted", "NetworkRunner", "ServerClock"]
