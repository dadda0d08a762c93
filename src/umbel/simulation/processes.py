"""The `processes` engine: worker processes do the tasks, and this process folds the updates.

Workers take tasks from a board in shared memory and put updates into shared memory; what is sent are lists of results.
Updates are folded here and not in the workers, so a worker that dies takes with it only what it was doing, and every
aggregator works. The fold walks over the shared memory itself: an update is copied nowhere on its way.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, final

import numpy as np

from umbel.arrays import Arrays
from umbel.engine.exchange import Arrived, Close, Event, Failed
from umbel.engine.question import Question
from umbel.engine.reduction import Reduced
from umbel.errors import ClientFailed, Failure, RunError
from umbel.sample import Population
from umbel.simulation.arena import LINE
from umbel.simulation.folding import Clients, ClientStates, Folding
from umbel.simulation.messages import (
    Answer,
    Answers,
    AskState,
    Broken,
    Cohort,
    End,
    Ended,
    More,
    Open,
    Room,
    State,
    Stored,
)
from umbel.simulation.pool import Died, Member, Pool, explain
from umbel.simulation.region import Loan, Region
from umbel.simulation.shipping import pack
from umbel.simulation.worker import FREE
from umbel.spec import Spec
from umbel.update import Metrics, Update

logger = logging.getLogger("umbel")
_ATTEMPTS = 3  # how often a task may cost a worker its life
_AT_HOME = 1024  # clients whose data a worker keeps; see umbel.client.work
_BUDGET = 1 << 30  # bytes that updates may take while they wait for slower clients before them


@final
@dataclass(slots=True)
class _Task:
    client: str
    attempt: int
    answer: Answer | None = None
    by: int = -1  # the worker that answered
    lives: int = 0  # workers that died of it


@final
class _Inbox:
    """The updates of one worker, in its memory."""

    def __init__(self, region: Region) -> None:
        self.region = region
        self.specs: list[Spec] = []
        self._lent: list[tuple[int, weakref.ref[Loan]]] = []
        self.starved = 0
        self.idle = False
        self.working_on: int | None = None

    def arrays(self, stored: Stored) -> Arrays:
        """The arrays that a worker stored."""
        spec = self.specs[stored.spec]
        piece, loan = self.region.lend(stored.offset + LINE, len(spec.header) + spec.nbytes, writable=False)
        self._lent.append((stored.offset, loan))
        return Arrays.over(spec, piece)

    def drop(self, answer: Answer) -> None:
        """Nobody wants these arrays."""
        for stored in (*([answer.arrays] if answer.arrays else []), *answer.extra.values()):
            self.region.array(stored.offset, 1, np.int64)[0] = FREE

    def release(self) -> bool:
        """Give pieces back that nobody looks at any more. Was there one?"""
        held = []
        for offset, loan in self._lent:
            if loan() is None:
                self.region.array(offset, 1, np.int64)[0] = FREE
            else:
                held.append((offset, loan))
        released = len(held) < len(self._lent)
        self._lent = held
        return released


@final
@dataclass(slots=True)
class Spent:
    """Seconds, over all processes, by what they went to."""

    training: float = 0.0
    moving: float = 0.0
    waiting: float = 0.0
    folding: float = 0.0
    redone: int = 0


@final
class Processes:
    """A `Runner` of the engine.

    Args:
        clients: who there is.
        pool: the worker processes.
        key: what they call the app.
        load: the message that gives it to a new worker.
        states: where clients' states are kept.
        has_data: does the app load clients' data, so that it matters who does which?
    """

    punctual = True

    def __init__(
        self, clients: Clients, pool: Pool, load: Any, states: ClientStates, *, has_data: bool, spent: Spent | None = None
    ) -> None:
        self._clients, self._pool, self._load, self._states = clients, pool, load, states
        self._has_data = has_data
        self._homes: OrderedDict[str, int] = OrderedDict()
        self._inboxes = [_Inbox(m.updates) for m in pool.members]
        self._question: Question
        self._folding: Folding
        self._tasks: list[_Task] = []
        self._by_client: dict[str, int] = {}
        self._events: list[Event] = []
        self._opened: Open | None = None
        self._extra: list[Cohort] = []
        self._busy: set[int] = set()  # workers that are not idle
        self._pending: set[int] = set()  # workers that have not let go of the exchange before
        self._held = False
        self._broadcast_from = 0
        self._deaths = 0
        self.spent = spent or Spent()
        pool.tell(load)

    def population(self, at_least: int, wait: float) -> Population:
        """All clients; none will come later."""
        del at_least, wait
        return self._clients.population

    # --- an exchange -------------------------------------------------------------------------

    def open(self, question: Question) -> None:
        """Begin an exchange."""
        self._question, self._folding = question, Folding(question, self._states)
        self._tasks, self._by_client, self._events = [], {}, []
        self._opened, self._extra = None, []

    def lease(self, tasks: Sequence[tuple[str, int]]) -> None:
        """Put tasks on the board."""
        begin = len(self._tasks)
        self._tasks += [_Task(client, attempt) for client, attempt in tasks]
        self._by_client |= {client: begin + i for i, (client, _) in enumerate(tasks)}
        infos = [self._clients[client] for client, _ in tasks]
        stateful = frozenset(c for c, _ in tasks if self._states.read(c))
        cohort = Cohort.of(infos, stateful)
        if self._opened is None:
            self._begin(cohort)
        else:
            self._extra.append(cohort)
            self._pool.board.append(range(begin, len(self._tasks)))
            self._tell(More(cohort))

    def _begin(self, cohort: Cohort) -> None:
        while self._pending:
            self._hear(None)
        if not self._held:
            self._broadcast_from = 0
        self._held = False
        end = [self._broadcast_from]
        broadcast = self._pool.broadcast

        def put(arrays: Arrays) -> int:
            data = np.frombuffer(arrays.to_bytes(), np.uint8)
            offset = -(-end[0] // LINE) * LINE
            end[0] = offset + data.size
            broadcast.resize(end[0])
            np.copyto(broadcast.array(offset, data.size, np.uint8), data)
            return offset

        question = pack(replace(self._question, aggregator=None, extra_aggregators={}), put)
        self._broadcast_from = end[0]
        self._pool.board.publish([self._homes.get(name, -1) for name in cohort.names])
        self._pool.exchanges += 1
        self._opened = Open(
            key=self._load.key,
            number=self._pool.exchanges,
            question=question,
            size=broadcast.size,
            capacity=self._pool.board.capacity,
            cohort=cohort,
        )
        self._tell(self._opened)

    def _tell(self, message: Any) -> None:
        self._busy = set(range(self._pool.workers))
        self._pool.tell(message)

    def wait(self, until: float) -> Sequence[Event]:
        """Block until workers have answered."""
        del until
        while not self._events:
            self._hear(None)
        events, self._events = self._events, []
        return events

    def _hear(self, timeout: float | None) -> None:
        for member, message in self._pool.wait(timeout):
            match message:
                case Answers():
                    self._take(member, message)
                case AskState():
                    member.send(State(self._states.read(self._tasks[message.task].client)))
                case Ended():
                    self._pending.discard(member.number)
                    self._held = self._held or message.held
                case Broken():
                    raise RunError(
                        f"a worker process cannot load the client app: {message.what}\n{message.traceback}",
                        advice="see that its modules can be imported in a new interpreter; or take engine='inline'",
                    )
                case Died():
                    self._bury(member, message)

    def _take(self, member: Member, message: Answers) -> None:
        inbox = self._inboxes[member.number]
        inbox.specs += message.specs
        for name, seconds in message.seconds.items():
            setattr(self.spent, name, getattr(self.spent, name) + seconds)
        current = self._opened is not None and message.number == self._opened.number
        for answer in message.answers:
            if not current or self._tasks[answer.task].answer is not None:
                inbox.drop(answer)
                continue
            self._deaths = 0
            self._note(member.number, answer)
        inbox.starved = message.starved
        if message.idle:
            self._busy.discard(member.number)
        if message.starved:
            self._make_room(member, all_events=False)

    def _note(self, worker: int, answer: Answer) -> None:
        task = self._tasks[answer.task]
        task.answer, task.by = answer, worker
        if answer.failure is not None:
            self._events.append(Failed(task.client, task.attempt, answer.failure))
            return
        self._events.append(Arrived(task.client, task.attempt))
        if self._has_data:
            self._homes[task.client] = worker
            self._homes.move_to_end(task.client)
            if len(self._homes) > _AT_HOME * self._pool.workers:
                self._homes.popitem(last=False)

    # --- folding -----------------------------------------------------------------------------

    def fold(self, clients: Sequence[tuple[str, int, int]]) -> Sequence[Failed]:
        """Fold the updates of these clients, from where they lie."""
        begin = time.perf_counter()
        refused = [failed for client, attempt, place in clients if (failed := self._fold(client, attempt, place))]
        self.spent.folding += time.perf_counter() - begin
        return refused

    def _fold(self, client: str, attempt: int, place: int) -> Failed | None:
        task = self._tasks[self._by_client[client]]
        answer, inbox = task.answer, self._inboxes[task.by]
        assert answer is not None
        if answer.kind == "metrics":
            return self._folding.fold(client, attempt, place, _metrics(answer), None)
        update = Update.made(
            answer.kind,  # type: ignore[arg-type]  # as the worker's update had it
            inbox.arrays(answer.arrays),  # type: ignore[arg-type]  # an update has arrays
            weight=answer.weight,
            metrics=answer.metrics,
            extra={name: inbox.arrays(stored) for name, stored in answer.extra.items()},
        )
        failed = self._folding.fold(client, attempt, place, update, answer.state)
        del update
        task.answer = answer._replace(arrays=None, extra={}, state=None, metrics={})
        inbox.release()
        if inbox.starved:
            self._make_room(self._pool.members[task.by], all_events=True)
        return failed

    def _make_room(self, member: Member, *, all_events: bool) -> None:
        """A worker has no room for its update: is there some now, or shall it have more memory?"""
        inbox = self._inboxes[member.number]
        inbox.release()
        needed = inbox.starved + LINE
        inbox.region.resize(inbox.region.size + max(needed, 0 if all_events else needed))
        inbox.starved = 0
        member.send(Room(inbox.region.size))

    def drop(self, client: str, attempt: int) -> None:
        """Throw an answer away."""
        del attempt
        task = self._tasks[self._by_client[client]]
        if task.answer is not None:
            self._inboxes[task.by].drop(task.answer)

    def revoke(self, clients: Sequence[str]) -> None:
        """Nobody starts with these any more."""
        del clients
        self._pool.board.clear()

    def close(self, close: Close) -> Reduced:
        """End the exchange."""
        begin = time.perf_counter()
        reduced = self._folding.close(close)
        self.spent.folding += time.perf_counter() - begin
        if self._opened is not None:
            self._pending = set(range(self._pool.workers))
            self._pool.tell(End())
            self._opened = None
        return reduced

    # --- workers that die --------------------------------------------------------------------

    def _bury(self, member: Member, died: Died) -> None:
        number = member.number
        index, since = self._pool.board.doing(number)
        raise RunError(f"worker {number} {explain(died)} {index} {since} {died.traceback}")


def _metrics(answer: Answer) -> Metrics:
    made = Metrics.__new__(Metrics)
    made.values, made.weight = answer.metrics, answer.weight
    return made


__all__ = ["Processes", "Spent"]
