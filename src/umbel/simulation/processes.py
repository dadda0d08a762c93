"""The `processes` engine: worker processes do the tasks, and this process folds the updates.

Workers take tasks from a board in shared memory and put updates into shared memory; what is sent are lists of results.
Updates are folded here and not in the workers, so a worker that dies takes with it only what it was doing, and every
aggregator works. The fold walks over the shared memory itself: an update is copied nowhere on its way.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np

from umbel.aggregate.weighted_sum import Spread, spreading
from umbel.arrays import Arrays
from umbel.engine.exchange import Arrived, Close, Event, Failed
from umbel.engine.question import Question
from umbel.engine.reduction import Reduced
from umbel.errors import RunError
from umbel.sample import Population
from umbel.simulation.arena import LINE
from umbel.simulation.deaths import Deaths
from umbel.simulation.folding import Answered, Clients, ClientStates, Folding
from umbel.simulation.inbox import Inbox
from umbel.simulation.messages import (
    Answer,
    Answers,
    AskState,
    Broken,
    Cohort,
    End,
    Ended,
    Load,
    More,
    Open,
    Room,
    State,
)
from umbel.simulation.pool import Died, Member, Pool
from umbel.simulation.shipping import pack
from umbel.update import Metrics, Update

_AT_HOME = 1024  # clients whose data a worker keeps; see umbel.client.work
_BUDGET = 1 << 30  # bytes that a worker's updates may take while they wait for those of slower clients before them


@final
@dataclass(slots=True)
class Task:
    """One client's part of an exchange.

    Attributes:
        client, attempt: who, and how often it was asked.
        answer: what came of it.
        inbox: where its arrays lie.
    """

    client: str
    attempt: int
    answer: Answer | None = None
    inbox: Inbox | None = None


@final
class Processes:
    """A `Runner` of the engine.

    Args:
        clients: who there is.
        pool: the worker processes.
        load: the message that gave them the app.
        states: where clients' states are kept.
        has_data: does the app load clients' data, so that it matters who does which?
        spread: shares out what is to be added up among threads.

    Attributes:
        spent: seconds by what they went to, over all processes.
    """

    punctual = True

    def __init__(
        self, clients: Clients, pool: Pool, load: Load, states: ClientStates, *, has_data: bool, spread: Spread
    ) -> None:
        self._spread = spread
        self._clients, self._pool, self._load, self._states = clients, pool, load, states
        self._has_data = has_data
        self._homes: OrderedDict[str, int] = OrderedDict()  # who has whose data
        self._inboxes = [Inbox(m.updates) for m in pool.members]
        self._deaths = Deaths(pool.limit)
        self._question: Question
        self._folding: Folding
        self._tasks: list[Task] = []
        self._by_client: dict[str, int] = {}
        self._events: list[Event] = []
        self._opened: Open | None = None
        self._told: list[Cohort] = []  # since it was opened
        self._ending: set[int] = set()  # workers that have not let go of the exchange before
        self._held = False  # does user code hold what was broadcast?
        self._free_from = 0  # the first byte of the broadcast memory that nobody may look at
        self.spent: dict[str, float] = {"training": 0.0, "moving": 0.0, "waiting": 0.0, "folding": 0.0}

    @property
    def busy(self) -> bool:
        """Is a worker in the middle of something?"""
        return self._opened is not None or bool(self._ending)

    def population(self, at_least: int, wait: float) -> Population:
        """All clients; none will come later."""
        del at_least, wait
        return self._clients.population

    # --- an exchange -------------------------------------------------------------------------

    def open(self, question: Question) -> None:
        """Begin an exchange."""
        self._start(question, Folding(question, self._states))

    def resume(self, question: Question, folding: Folding, tasks: Sequence[tuple[str, int]]) -> None:
        """Go on with an exchange that another engine began."""
        self._start(question, folding)
        self.lease(tasks)

    def _start(self, question: Question, folding: Folding) -> None:
        self._question, self._folding = question, folding
        self._tasks, self._by_client, self._events = [], {}, []
        self._opened, self._told = None, []

    def lease(self, tasks: Sequence[tuple[str, int]]) -> None:
        """Put tasks on the board."""
        begin = len(self._tasks)
        self._tasks += [Task(client, attempt) for client, attempt in tasks]
        self._by_client |= {client: begin + i for i, (client, _) in enumerate(tasks)}
        stateful = frozenset(client for client, _ in tasks if self._states.has(client))
        cohort = Cohort.of([self._clients[client] for client, _ in tasks], stateful)
        if self._opened is None:
            self._begin(cohort)
        else:
            self._told.append(cohort)
            self._pool.board.append(range(begin, len(self._tasks)))
            self._pool.tell(More(cohort))

    def _begin(self, cohort: Cohort) -> None:
        while self._ending:
            self._hear()
        begin = time.perf_counter()
        question = pack(replace(self._question, aggregator=None, extra_aggregators={}), self._broadcaster())
        self._pool.board.publish([self._homes.get(name, -1) for name in cohort.names])
        self._pool.exchanges += 1
        self._opened = Open(
            key=self._load.key,
            number=self._pool.exchanges,
            question=question,
            size=self._pool.broadcast.size,
            capacity=self._pool.board.capacity,
            cohort=cohort,
        )
        self._pool.tell(self._opened)
        self.spent["moving"] += time.perf_counter() - begin

    def _broadcaster(self) -> Any:
        """What puts arrays where all workers see them; over those of the exchange before, if nobody holds them."""
        self._free_from = self._free_from if self._held else 0
        self._held = False
        broadcast = self._pool.broadcast

        def put(arrays: Arrays) -> int:
            data = np.frombuffer(arrays.to_bytes(), np.uint8)
            offset = -(-self._free_from // LINE) * LINE
            self._free_from = offset + data.size
            broadcast.resize(self._free_from)
            np.copyto(broadcast.array(offset, data.size, np.uint8), data)
            return offset

        return put

    def wait(self, until: float) -> Sequence[Event]:
        """Block until workers have answered."""
        del until
        while not self._events:
            self._feed()
            self._hear()
        events, self._events = self._events, []
        return events

    def _hear(self) -> None:
        for member, message in self._pool.wait():
            match message:
                case Answers():
                    self._take(member, message)
                case AskState():
                    member.send(State(self._states.read(self._tasks[message.task].client)))
                case Ended():
                    self._ending.discard(member.number)
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
            self.spent[name] += seconds
        current = self._opened is not None and message.number == self._opened.number
        for answer in message.answers:
            if current and self._tasks[answer.task].answer is None:
                self._note(inbox, member.number, answer)
            else:
                inbox.drop(answer)
        inbox.starved = message.starved

    def _note(self, inbox: Inbox, worker: int, answer: Answer) -> None:
        task = self._tasks[answer.task]
        task.answer, task.inbox = answer, inbox
        self._deaths.none_since()
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
        with spreading(self._spread):
            refused = self._folding.fold([self._answered(*place) for place in clients])
        for inbox in self._inboxes:
            inbox.release()
        self.spent["folding"] += time.perf_counter() - begin
        self._feed()
        return refused

    def _answered(self, client: str, attempt: int, place: int) -> Answered:
        task = self._tasks[self._by_client[client]]
        answer, inbox = task.answer, task.inbox
        assert answer is not None
        assert inbox is not None
        task.answer = Answer(answer.task, "folded")
        done = _metrics(answer) if answer.arrays is None else _update(answer, inbox)
        return Answered(client, attempt, place, done, answer.state)

    def _feed(self) -> None:
        """Let workers go on that had no room for an update.

        If some of a worker's updates were folded, there is room now. If not, they wait for those of slower clients:
        then it gets more memory, so that a slow client does not stop the others. Beyond the budget it has to wait,
        unless it is the one that the others wait for.
        """
        for member, inbox in zip(self._pool.members, self._inboxes, strict=True):
            if inbox.starved and (inbox.release() or self._may_grow(member, inbox)):
                member.send(Room(inbox.serve()))

    def _may_grow(self, member: Member, inbox: Inbox) -> bool:
        first = next((i for i, task in enumerate(self._tasks) if task.answer is None), -1)
        if inbox.size + inbox.starved > _BUDGET and self._pool.board.doing(member.number)[0] != first:
            return False
        inbox.grow()
        return True

    def drop(self, client: str, attempt: int) -> None:
        """Throw an answer away."""
        del attempt
        task = self._tasks[self._by_client[client]]
        if task.answer is not None and task.inbox is not None:
            task.inbox.drop(task.answer)

    def revoke(self, clients: Sequence[str]) -> None:
        """Nobody starts with these any more."""
        del clients
        self._pool.board.clear()

    def close(self, close: Close) -> Reduced:
        """End the exchange."""
        begin = time.perf_counter()
        reduced = self._folding.close(close)
        self.spent["folding"] += time.perf_counter() - begin
        if self._opened is not None:
            self._ending = set(range(self._pool.workers))
            self._pool.tell(End())
            self._opened = None
        return reduced

    # --- workers that die --------------------------------------------------------------------

    def _bury(self, member: Member, died: Died) -> None:
        """A worker has died: what it had not answered is done again, all but what it died of."""
        number, ending = member.number, self._opened is None
        doing, _ = self._pool.board.doing(number)
        open_tasks = [i for i, task in enumerate(self._tasks) if task.answer is None]
        lost = self._pool.board.again(number, open_tasks if not ending else [])
        of = self._tasks[doing] if doing in lost else None
        if failure := self._deaths.judge(died, self._question, of.client if of else None, lost=len(lost)):
            self._note(self._inboxes[number], number, Answer(doing, "failure", failure=failure))
            self._pool.board.again(number, [i for i in open_tasks if i != doing])
        fresh = self._pool.restart(number)
        self._inboxes[number] = Inbox(fresh.updates)
        self._ending.discard(number)
        if ending:
            return
        assert self._opened is not None
        fresh.send(replace(self._opened, capacity=self._pool.board.capacity))
        for cohort in self._told:
            fresh.send(More(cohort))
        self._pool.tell(More())


def _metrics(answer: Answer) -> Metrics:
    return Metrics.made(answer.metrics, weight=answer.weight)


def _update(answer: Answer, inbox: Inbox) -> Update:
    assert answer.arrays is not None
    return Update.made(
        answer.kind,  # type: ignore[arg-type]  # as the worker's update had it
        inbox.arrays(answer.arrays),
        weight=answer.weight,
        metrics=answer.metrics,
        extra={name: inbox.arrays(stored) for name, stored in answer.extra.items()} if answer.extra else {},
    )


__all__ = ["Processes"]
