"""The `processes` engine: worker processes do the tasks, and this process folds the updates.

Workers take tasks from a board in shared memory and put updates into shared memory; what is sent are lists of results.
Updates are folded here and not in the workers, so a worker that dies takes with it only what it was doing, and every
aggregator works. The fold walks over the shared memory itself: a large update is copied nowhere on its way, a small
one once.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import final

from umbel.client.memory import available
from umbel.engine.columns import Columns
from umbel.engine.exchange import Arrived, Close, Event, Failed
from umbel.engine.folding import AnsweredRows, ClientStates, Folding
from umbel.engine.question import Question
from umbel.engine.reduction import Reduced
from umbel.errors import RunError
from umbel.sample import Population
from umbel.simulation.cpus import woken_apart
from umbel.simulation.deaths import Deaths
from umbel.simulation.groups import Clients, Group, groups
from umbel.simulation.linger import Linger
from umbel.simulation.messages import (
    Answer,
    Answers,
    AskState,
    Broken,
    Cohort,
    End,
    Load,
    Loaded,
    Lot,
    More,
    Open,
    Room,
    State,
)
from umbel.simulation.pool import Died, Member, Pool
from umbel.simulation.shipping import pack
from umbel.simulation.tasks import Tasks
from umbel.simulation.units import Units

logger = logging.getLogger("umbel")
_AT_HOME = 1024  # clients whose data a worker keeps; see umbel.client.loads
_BUDGET = 1 << 30  # bytes that a worker's updates may take while they wait for those of slower clients before them


@final
class Processes:
    """A `Runner` of the engine.

    Args:
        clients: who there is.
        pool: the worker processes.
        load: the message that gave them the app.
        states: where clients' states are kept.
        has_data: does the app load clients' data, so that it matters who does which?
        chosen: did the user say how many workers there are?
        grouped: are clients trained together?

    Attributes:
        spent: seconds by what they went to, over all processes.
        loaded: has a worker loaded the app?
    """

    punctual = True

    def __init__(
        self,
        clients: Clients,
        pool: Pool,
        load: Load,
        states: ClientStates,
        *,
        has_data: bool,
        chosen: bool,
        grouped: bool,
    ) -> None:
        self._measured = chosen
        self._clients, self._pool, self._load, self._states = clients, pool, load, states
        self._has_data = has_data
        self._homes: OrderedDict[str, int] = OrderedDict()  # who has whose data
        self._deaths = Deaths(pool.limit, workers=len(pool.members))
        self._warned_of: set[str] = set()  # devices that were full
        self._question: Question | None = None
        self._folding: Folding
        self._tasks = Tasks()
        self._events: list[Event] = []
        self._opened: Open | None = None
        self._told: list[More] = []  # since it was opened
        self._grouped = grouped
        self._lingering = Linger()
        self._units = Units()
        self._split: set[int] = set()  # units that were taken apart
        self.loaded = False
        self.spent: dict[str, float] = {"training": 0.0, "moving": 0.0, "waiting": 0.0, "folding": 0.0}

    def ready(self) -> bool:
        """Hear what workers say while they start. Can one begin?

        Raises:
            RunError: the app cannot be loaded, or no worker can be started.
        """
        self._hear(0.0)
        return self.loaded

    def population(self, at_least: int, wait: float) -> Population:
        """All clients; none will come later."""
        del at_least, wait
        return self._clients.population

    # --- an exchange -------------------------------------------------------------------------

    def open(self, question: Question, cohort: int) -> None:
        """Begin an exchange."""
        del cohort
        self._start(question, Folding(question, self._states))

    def resume(self, question: Question, folding: Folding, left: Sequence[Group]) -> None:
        """Go on with an exchange that another engine began, of which these groups are left."""
        self._start(question, folding)
        self._lease([*itertools.chain.from_iterable(left)], [*map(len, left)])

    def _start(self, question: Question, folding: Folding) -> None:
        self._question, self._folding = question, folding
        self._tasks, self._events = Tasks(), []
        self._opened, self._told = None, []
        self._units, self._split = Units(), set()

    def lease(self, tasks: Sequence[tuple[str, int]]) -> None:
        """Put tasks on the board."""
        assert self._question is not None
        together = self._grouped and self._question.kind == "train" and self._opened is None
        self._lease(tasks, [*map(len, groups(tasks, together=True))] if together else [1] * len(tasks))

    def _lease(self, tasks: Sequence[tuple[str, int]], sizes: Sequence[int]) -> None:
        """Put tasks on the board, so many at a time."""
        tasks = Columns.of(tasks, 2)
        names = [*tasks.columns[0]]
        number = len(self._units)
        self._units.extend(Units.of(sizes, len(self._tasks)))
        self._tasks.add(tasks)
        cohort = Cohort.of(names, self._clients, self._states.stateful(names))
        if self._opened is None:
            assert self._question is not None
            self._begin(self._question, cohort)
        else:
            self._append(More(cohort, self._units.since(number)), number)

    def _append(self, message: More, number: int) -> None:
        """Units from this number on are new."""
        self._pool.board.append(range(number, len(self._units)))
        self._tell(message)

    def _tell(self, message: More) -> None:
        """Tell all workers that there is more to do."""
        self._told.append(message)
        self._pool.rests.more()
        self._pool.tell(message)

    def _begin(self, question: Question, cohort: Cohort) -> None:
        while self._pool.rests.pending:
            self._hear()
        begin = time.perf_counter()
        self._pool.broadcast.end()  # of one that could not be packed
        packed = pack(replace(question, aggregator=None, extra_aggregators={}), self._pool.broadcast.put)
        self._pool.exchanges += 1
        self._pool.rests.begin(self._pool.exchanges)
        self._pool.board.exchange = self._pool.exchanges
        homes = [self._homes.get(cohort.names[begin], -1) for begin in self._units.begins] if self._homes else None
        self._pool.board.publish(len(self._units), homes)
        self._opened = Open(
            key=self._load.key,
            number=self._pool.exchanges,
            question=packed,
            size=self._pool.broadcast.size,
            cohort=cohort,
            units=self._units.since(0),
        )
        with woken_apart([member.pid for member in self._pool.members]):
            self._pool.tell(self._opened)
        self.spent["moving"] += time.perf_counter() - begin

    def wait(self, until: float) -> Sequence[Event]:
        """Block until workers have answered."""
        del until
        while not self._events:
            self._hear(self._feed())
        self._linger()
        events, self._events = self._events, []
        return events

    def _linger(self) -> None:
        """Wait a little for the updates of those who are about to have one, too."""
        assert self._question is not None
        sent, there = self._question.sent, len(self._events)
        if sent is None or not (seconds := self._lingering.seconds(sent.nbytes, there)):
            return
        end = time.monotonic() + seconds
        while self._awaits() and (left := end - time.monotonic()) > 0:
            self._hear(left)
        if there == 1 and self._awaits():
            self._lingering.note(came=len(self._events) > 1)

    def _awaits(self) -> bool:
        """May each worker have an update soon, and is one yet to come?"""
        members = self._pool.members
        return len(self._events) < len(members) and any(self._works(member) for member in members)

    def _hear(self, seconds: float | None = None) -> None:
        for member, message in self._pool.wait(seconds):
            match message:
                case Answers():
                    self._take(member, message)
                case AskState():
                    if self._is_open(message.number):
                        member.send(State(self._states.read(self._tasks[message.task][0])))
                case Loaded():
                    self.loaded = True
                case Broken():
                    raise RunError(
                        f"a worker process cannot load the client app: {message.what}\n{message.traceback}",
                        advice=message.advice
                        or "see that its modules can be imported in a new interpreter; or take engine='inline'",
                    )
                case Died() if member in self._pool.members:
                    self._bury(member, message)

    def _is_open(self, number: int) -> bool:
        return self._opened is not None and number == self._opened.number

    def _take(self, member: Member, message: Answers) -> None:
        inbox = member.inbox
        inbox.specs += message.specs
        member.device = message.device
        for name, seconds in message.seconds.items():
            self.spent[name] += seconds
        if message.rest is not None:
            self._pool.rests.note(member.number, message.number, message.rest)
        if not self._is_open(message.number):
            for answer in message.answers:
                inbox.drop(answer)
            for lot in message.lots:
                inbox.rows(lot)  # and let go of them
            return
        inbox.starve(message.starved)
        full = False
        for answer in message.answers:
            if answer.full and self._is_shared(member):
                full = True
            elif self._tasks.is_open(answer.task):
                self._note(member, answer.task, answer)
            else:
                inbox.drop(answer)
        for lot in message.lots:
            self._note_rows(member, lot)
        if full:
            self._make_room_on(member)
        elif (message.answers or message.lots) and not self._measured:
            self._measured = True
            self._fit(message.resident)

    def _note(self, member: Member, number: int, answer: Answer) -> None:
        self._tasks.note(number, answer, member.inbox)
        self._deaths.none_since()
        client, attempt = self._tasks[number]
        if answer.failure is not None:
            self._events.append(Failed(client, attempt, answer.failure))
            return
        self._events.append(Arrived([(client, attempt)]))
        self._remember(member, [client])

    def _note_rows(self, member: Member, lot: Lot) -> None:
        arrived = self._tasks.note_rows(lot.tasks, member.inbox.rows(lot), member.inbox)
        self._deaths.none_since()
        if arrived:
            self._events.append(Arrived(arrived))
            self._remember(member, arrived.columns[0])

    def _remember(self, member: Member, clients: Sequence[str]) -> None:
        """Who has these clients' data."""
        if not self._has_data:
            return
        for client in clients:
            self._homes[client] = member.number
            self._homes.move_to_end(client)
        while len(self._homes) > _AT_HOME * self._pool.workers:
            self._homes.popitem(last=False)

    # --- folding -----------------------------------------------------------------------------

    def fold(self, clients: Sequence[tuple[str, int, int]]) -> Sequence[Failed]:
        """Fold the updates of these clients, from where they lie."""
        begin = time.perf_counter()
        refused = self._fold(clients)
        for member in self._pool.members:
            member.inbox.release()
        self.spent["folding"] += time.perf_counter() - begin
        self._feed()
        return refused

    def _fold(self, clients: Sequence[tuple[str, int, int]]) -> list[Failed]:
        """Fold these; nothing of their updates is held afterwards."""
        refused: list[Failed] = []
        for answered in self._tasks.take(Columns.of(clients, 3)):
            if isinstance(answered, AnsweredRows):
                refused += self._folding.fold_rows(answered)
            else:
                refused += self._folding.fold(answered)
        return refused

    def _feed(self) -> float | None:
        """Let workers go on that had no room for an update.

        If some of a worker's updates were folded, there is room now. If not, they wait for those of slower clients:
        then it gets more memory after a while, so that a slow client does not stop the others. Beyond the budget it
        has to wait, unless it is the one that the others wait for, or nobody works any more.

        Returns:
            Seconds after which one may get more memory; None: not before something is heard.
        """
        starved = [member for member in self._pool.members if member.inbox.starved]
        for member in starved:
            if member.inbox.release() or self._may_grow(member):
                self._make_room(member)
        waiting = [member for member in starved if member.inbox.starved]
        if waiting and not any(self._works(member) for member in self._pool.members):
            first = min(waiting, key=lambda member: self._pool.board.doing(member.number))
            first.inbox.grow()
            self._make_room(first)
        return min((left for member in waiting if (left := member.inbox.patience) > 0), default=None)

    def _make_room(self, member: Member) -> None:
        member.send(Room(member.inbox.serve()))

    def _may_grow(self, member: Member) -> bool:
        inbox = member.inbox
        if inbox.patience > 0 and self._tasks.holds(inbox):
            return False
        if inbox.size + inbox.starved > _BUDGET and self._pool.board.doing(member.number) != self._tasks.first_open:
            return False
        inbox.grow()
        return True

    def _works(self, member: Member) -> bool:
        """Will it say something without our help? It may have done its last task, and not have said so yet."""
        return not member.inbox.starved and not self._pool.rests.is_resting(member.number)

    def drop(self, client: str, attempt: int) -> None:
        """Throw an answer away."""
        del attempt
        self._tasks.drop(client)

    def revoke(self, clients: Sequence[str]) -> None:
        """Nobody starts with these any more."""
        del clients
        self._pool.board.clear()

    def close(self, close: Close) -> Reduced:
        """End the exchange."""
        begin = time.perf_counter()
        reduced = self._folding.close(close)
        self.spent["folding"] += time.perf_counter() - begin
        self.abandon()
        self._tasks = Tasks()  # the old ones hold the memory of workers that died
        return reduced

    def abandon(self) -> None:
        """What is not done of the exchange is not wanted any more."""
        if self._opened is not None:
            self._opened = None
            self._pool.board.clear()
            broadcast = self._pool.broadcast
            late = self._pool.rests.end([member.number for member in self._pool.members], broadcast.sent)
            broadcast.end()
            for member in self._pool.members:
                member.inbox.starve(0)
                if member.number in late:
                    member.send(End())

    # --- workers that die, and those that are too many ---------------------------------------

    def _bury(self, member: Member, died: Died) -> None:
        """A worker has died: what it had not answered is done again, all but what it died of."""
        if self._opened is None:
            self._deaths.judge(died, None, None, lost=0)
            self._pool.restart(member)
            return
        mine = self._pool.board.taken(member.number, self._left())
        doing = self._pool.board.doing(member.number)
        unit = next((u for u in mine if doing in self._units[u]), None)
        client = self._tasks[doing][0] if unit is not None else None
        lost, number = sum(len(self._unanswered(u)) for u in mine), len(self._units)
        if failure := self._deaths.judge(died, self._question, client, lost=lost):
            assert unit is not None
            self._note(member, doing, Answer(doing, "failure", failure=failure))
            self._split.add(unit)  # without that client it is no longer the group that it was
            again = self._unanswered(unit)
            self._units.extend(Units(again, [task + 1 for task in again]))
        self._pool.board.again(member.number, [u for u in self._left() if u < number])
        fresh = self._pool.restart(member)
        for message in (self._opened, *self._told):
            fresh.send(message)
        self._append(More(units=self._units.since(number)), number)

    def _left(self) -> list[int]:
        """The units that are not done."""
        return [u for u in range(len(self._units)) if u not in self._split and self._unanswered(u)]

    def _unanswered(self, unit: int) -> list[int]:
        return [task for task in self._units[unit] if self._tasks.is_open(task)]

    def _is_shared(self, member: Member) -> bool:
        """Does another worker compute on the same device, as far as is known?"""
        return any(m is not member and m.device in ("", member.device) for m in self._pool.members)

    def _make_room_on(self, member: Member) -> None:
        """A device's memory does not suffice for all its workers: this one ends, and others do what it did."""
        if member.device not in self._warned_of:
            self._warned_of.add(member.device)
            logger.warning(
                "device-full: the memory of %s does not suffice for so many workers: the run goes on with fewer",
                member.device or "a device",
            )
        self._retire([member])

    def _fit(self, resident: int) -> None:
        """End workers for which there will not be enough memory, judged by the first that has worked."""
        there = available()
        if not resident or not there:
            return
        most = 1 + there // resident
        if most < len(self._pool.members):
            logger.warning(
                "fewer-workers: one takes %d MB and there are %d MB left: the run goes on with %d of %d",
                resident >> 20,
                there >> 20,
                most,
                len(self._pool.members),
            )
            self._retire(self._pool.members[most:])

    def _retire(self, members: Sequence[Member]) -> None:
        for member in members:
            self._pool.retire(member)
            self._pool.board.again(member.number, self._left())
        self._tell(More())


__all__ = ["Processes"]
