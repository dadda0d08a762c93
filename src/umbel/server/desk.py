"""A run's side of the network: who is asked, who has answered. Lives in the run's own thread.

Whoever runs the engine's loop is a plain function that waits; the hub lives in the event loop. They meet in two places:
words into the loop, which are heard in their order, and a queue of events out of it. Of what it says a run waits for
nothing but who is there, since each waiting costs a round several switches between threads.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import queue
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import asdict
from typing import Any, final

from umbel.engine.exchange import Arrived, Event, Failed, Lost
from umbel.engine.question import Question
from umbel.errors import DiskFull, Failure, FormatError
from umbel.sample import Population
from umbel.server.answers import Answer, answer_of
from umbel.server.hub import Hub, OpenExchange
from umbel.server.wanted import Wanted
from umbel.store.sql import Kept, RunRow, ServerStore
from umbel.store.sql import OpenExchange as OpenRow
from umbel.wire import MESSAGE, Task, TaskId, check_task

_SPARE = 64 << 20  # bytes that stay free on the disk, for the database and its log
_ATTEMPTS_SHOWN = 3
_LONG_AGO = 0.0  # all deadlines have passed since
_ROOM = 4096  # bytes of a message around a task that is the same for all clients


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
class _Tray:
    """What comes in for one exchange, so that nothing comes in for the next that was meant for it.

    Attributes:
        sequence: which exchange; 0: none.
        events: what has happened.
        answers: by client, those that nobody has folded yet.
        early: by client, those that came before the hub had heard that they are asked for.
    """

    def __init__(self, sequence: int = 0) -> None:
        self.sequence = sequence
        self.events: queue.SimpleQueue[Event | Exception] = queue.SimpleQueue()
        self.answers: dict[str, Answer] = {}
        self.early: dict[str, Answer] = {}

    def takes(self, answer: Answer | None, attempt: int) -> bool:
        """Need a client not be asked, since this is its answer?"""
        if answer is None or (answer.attempt < attempt and answer.retryable):
            return False
        self.put(answer, attempt)
        return True

    def put(self, answer: Answer, attempt: int) -> None:
        """A client's answer; it counts for this attempt."""
        if isinstance(answer.done, Failure):
            kind = Lost if answer.retryable else Failed
            self.events.put(kind(answer.client, attempt, answer.done))
            return
        self.answers[answer.client] = answer
        self.events.put(Arrived([(answer.client, attempt)]))


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
        checking: the question that answers are checked against; None: there is no open exchange.
        returning: are there exchanges of an earlier process that are still to be gone on with?
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
        self._tray = _Tray()
        self._opening: OpenExchange | None = None  # that the hub has not heard of yet
        self._calling: Future[Any] | None = None
        self._reopened = tuple(store.unclosed(run.id))  # what an earlier process has left open, in order
        self._gathered = "{}"
        self._known: tuple[int, Population] | None = None  # who was there, by the hub's version
        self._stored: dict[str, Answer] = {}  # of this exchange, from before this process
        self._over = False  # has an earlier process closed it?
        self._begin_with = dict(store.states(run.id))  # by client, the exchange whose state it begins with
        self._counted: tuple[str, ...] = ()
        self._renamed: dict[str, str] = {}  # what clients of this exchange are called now
        self.checking: Question | None = None
        self.returning = bool(self._reopened)
        self.waited = 0.0
        self.interrupted: Interrupted | None = None
        self.at_interrupt: Callable[[], object] = lambda: None

    # --- calls from the loop's thread --------------------------------------------------------

    def interrupt(self, reason: str) -> None:
        """Let the run end where it waits next."""
        self.interrupted = Interrupted(reason)
        self._tray.events.put(self.interrupted)
        if (calling := self._calling) is not None:
            calling.cancel()
        self.at_interrupt()

    def renamed(self, old: str, new: str) -> None:
        """A node is called otherwise now; the state that it keeps stays its own."""
        again = {client: new for client, name in self._renamed.items() if name == old}
        self._renamed |= {old: new, **again}
        if old in self._begin_with:
            self._begin_with[new] = self._begin_with[old]  # before the other goes: the run's thread may look
            del self._begin_with[old]

    def arrived(self, sequence: int, answer: Answer, attempt: int) -> None:
        """A client's answer in this exchange is durable; it counts for this attempt. 0: nobody waits for it yet."""
        tray = self._tray
        if tray.sequence != sequence:
            return
        if attempt:
            tray.put(answer, attempt)
        else:
            tray.early[answer.client] = answer

    def _ask(self, opening: OpenExchange | None, tray: _Tray, tasks: Sequence[tuple[str, int]]) -> None:
        """Ask clients whose answer has not come since somebody looked into the store; open the exchange before."""
        if opening is not None:
            self._hub.open(opening)
        left = [task for task in tasks if not tray.takes(tray.early.pop(task[0], None), task[1])]
        self.returning = bool(self._reopened)
        self._hub.lease(self._run.id, left)

    # --- into the loop's thread --------------------------------------------------------------

    def _tell(self, work: Callable[..., object], *args: Any) -> None:
        """Have something done there, soon and in its turn; what it raises, `wait` raises."""
        events = self._tray.events

        def do() -> None:
            try:
                work(*args)
            except Exception as error:  # noqa: BLE001  # the run ends with it, not the loop
                events.put(error)

        self._loop.call_soon_threadsafe(do)

    def _gather(self, at_least: int, wait: float) -> Population:
        gathering = self._hub.gather(self._wanted, at_least, wait, self._waits)
        self._calling = calling = asyncio.run_coroutine_threadsafe(gathering, self._loop)
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
        self._check()
        version = self._hub.version
        if self._known is not None and self._known[0] == version and len(self._known[1].names) >= at_least:
            return self._known[1]
        found = self._gather(at_least, wait)
        self._known = version, found
        self._gathered = json.dumps({name: dict(found.labels.get(name, {})) for name in found.names})
        return found

    def _waits(self, reason: str, left: float) -> None:
        until = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(time.time() + left))
        self._say("status", {"status": "waiting", "reason": f"{reason}; until {until}"})

    def open(self, question: Question, template: Task, blobs: Sequence[Kept], cohort: int) -> float:
        """Begin an exchange, or go on with one; gives when it was opened.

        One that another was opened after is over: what has come counts, and nobody is asked.

        Args:
            question: what is asked, as far as answers are checked against it.
            template: what all its tasks have in common, as `umbel.link.tasks.task_of` makes it.
            blobs: that it names; they are kept.
            cohort: how many clients may answer.

        Raises:
            DiskFull: there is no room for the answers.
            FormatError: no node would accept the task; names the field.
        """
        self._fill(template, question.sequence)
        self._check_room(question, cohort)
        mine = OpenRow(
            sequence=question.sequence,
            digest=hashlib.sha256(template.SerializeToString(deterministic=True)).hexdigest(),
            opened=self._now(),
            population=self._gathered,
            roster="[]",
        )
        self._tray, self._counted, self._renamed = _Tray(question.sequence), (), {}
        opened = self._written(self._store.open_exchange(self._run.id, mine, blobs), mine)
        if self.interrupted is not None:
            self._tray.events.put(self.interrupted)
        rows = self._store.answers(self._run.id, question.sequence) if opened is not mine else ()
        self._stored = {row.client: answer_of(row, question, self._store.blobs.fetch) for row in rows}
        wheel = [self._wanted.app.wheel.digest.hex()] if self._wanted.brings else []
        self._opening = self._exchange(question, template, frozenset([*(kept.digest for kept in blobs), *wheel]))
        self.checking = question
        same = self._reopened[:1] and self._reopened[0].sequence == question.sequence
        self._reopened = self._reopened[1:] if same else ()  # else main asks for something else now
        self._over = bool(self._reopened)
        return _LONG_AGO if self._over else opened.opened

    def _written(self, opening: Future[OpenRow], mine: OpenRow) -> OpenRow:
        """The exchange as it stands in the store. One that cannot be there yet is being written while nodes are asked.

        Answers are written behind it. Should it be lost with this process, none of them was acknowledged, and the same
        is asked again.
        """
        if self._reopened:
            return opening.result()
        events = self._tray.events

        def done(opening: Future[OpenRow]) -> None:
            if (error := opening.exception()) is not None:
                events.put(error if isinstance(error, Exception) else RuntimeError(str(error)))

        opening.add_done_callback(done)
        return mine

    def _fill(self, task: Task, sequence: int) -> None:
        task.id.CopyFrom(TaskId(run=self._run.id, exchange=sequence))
        task.run_name, task.submitter, task.dataset = self._run.name, self._run.owner, self._run.dataset
        task.app.CopyFrom(self._wanted.app)
        task.threads = self._threads
        if task.ByteSize() > MESSAGE // 2:  # then nodes read what could be inside on its own
            model = [task.model] if task.HasField("model") else []
            for blob in (*model, *(named.blob for named in task.extra), *task.attachments):
                blob.ClearField("content")
        _check_accepted(task)

    def _check_room(self, question: Question, cohort: int) -> None:
        """Is there room for what the nodes will send?"""
        size = question.model.nbytes if question.model is not None and question.kind != "evaluate" else 0
        need, free = size * cohort + _SPARE, self._store.blobs.free()
        if free < need:
            raise DiskFull(
                f"round {question.round} does not open: {need:,} bytes are needed, for {cohort} answers of {size:,} "
                f"and all else, and {free:,} are free on the server's disk"
            )

    def _exchange(self, question: Question, template: Task, blobs: frozenset[str]) -> OpenExchange:
        states = dict(self._begin_with)

        def task(client: str, attempt: int) -> Task:
            made = Task()
            made.CopyFrom(template)
            made.id.client, made.id.attempt = client, attempt
            made.state = states.get(client, 0)
            return made

        label = question.round, question.label
        return OpenExchange(self._run.id, question.sequence, label, task, self._tray.events.put, blobs)

    def lease(self, tasks: Sequence[tuple[str, int]]) -> None:
        """Ask these clients; whose answer is there already has answered."""
        ask = dict(tasks)
        came = [answer for answer in self._stored.values() if answer.client in ask]  # in the order in which they came
        for answer in came:
            if self._tray.takes(answer, ask[answer.client]):
                del ask[answer.client]
        opening, self._opening = self._opening, None
        self._tell(self._ask, opening, self._tray, () if self._over else [*ask.items()])

    def wait(self, until: float) -> list[Event]:
        """Wait for what happens."""
        begin = time.perf_counter()
        events: list[Event] = []
        try:
            self._add(events, self._tray.events.get(timeout=max(0.0, until - self._now())))
            while True:
                self._add(events, self._tray.events.get_nowait())
        except queue.Empty:
            return events
        finally:
            self.waited += time.perf_counter() - begin

    def _add(self, events: list[Event], event: Event | Exception) -> None:
        if isinstance(event, Exception):
            raise event
        events.append(event)
        if isinstance(event, Lost) and event.attempt < _ATTEMPTS_SHOWN:
            self._say("failure", {**asdict(event.failure), "again": True})

    def take(self, client: str) -> Answer:
        """A client's answer, for who folds it."""
        return self._tray.answers.pop(client)

    def drop(self, client: str) -> None:
        """Throw an answer away."""
        self._tray.answers.pop(client, None)

    def revoke(self, clients: Sequence[str]) -> None:
        """Tell these clients to stop."""
        self._tell(self._hub.revoke, self._run.id, clients, "the round went on without this answer")

    def close(self) -> None:
        """The exchange is over."""
        self.checking, self._opening = None, None
        self._tell(self._hub.close, self._run.id, "the round is over")
        self._stored.clear()
        self._tray.answers.clear()

    @property
    def counted(self) -> tuple[str, ...]:
        """Whose new state counts since the last close, as they are called now."""
        return tuple(self._renamed.get(client, client) for client in self._counted)

    def count(self, clients: Sequence[str]) -> None:
        """The new states of these count."""
        clients = self._counted = tuple(self._renamed.get(client, client) for client in clients)
        self._begin_with |= dict.fromkeys(clients, self._tray.sequence)


def _check_accepted(task: Task) -> None:
    """Refuse a task that nodes would not accept: it would end their sessions, again and again.

    Raises:
        FormatError: names the field.
    """
    task.id.client, task.id.attempt = "client", 1
    check_task(task)
    task.id.ClearField("client")
    task.id.ClearField("attempt")
    if task.ByteSize() > MESSAGE - _ROOM:
        raise FormatError(
            f"the task has {task.ByteSize():,} bytes, {MESSAGE - _ROOM:,} travel", advice="send less config"
        )


__all__ = ["Desk", "Interrupted"]
