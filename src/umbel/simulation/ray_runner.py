"""The `ray` engine: actors of a Ray cluster do the tasks of whole shards and fold them; shards are merged here.

Where the updates of a shard are folded makes no difference as long as each of them fits those before it. Whether it
does is seen in the shard by the actor, and between shards here. Where one does not fit, that shard is done again, and
its updates come to this process, which folds them one after the other as the inline engine does. So the same updates
are refused. The same way is taken by clients that make up no whole shard, by spares, by evaluations, and where an
aggregator's own `admit` may look at more than specs.

Where local training is declared, clients are trained in groups, whose last bits depend on who is in them. A group is
one piece, and stays one when it is done again. It is a shard, or the beginning of one, or, at the end of a cohort, of
two shards; then its updates come to this process.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate, chain, groupby, pairwise
from typing import Any, final

from umbel.aggregate import Aggregator
from umbel.aggregate.base import Summing
from umbel.aggregate.concat import Concat
from umbel.aggregate.q_fair import QFair
from umbel.engine.exchange import Arrived, Close, Event, Failed
from umbel.engine.folding import Answered, ClientStates, Folding
from umbel.engine.question import Question
from umbel.engine.reduction import SHARD, Reduced
from umbel.errors import BadUpdate, ClientFailed, Failure, RunError
from umbel.sample import Population
from umbel.simulation.groups import Clients, groups
from umbel.simulation.messages import Cohort
from umbel.simulation.ray_actor import Asked, Order, Report, seal, unseal
from umbel.simulation.ray_crew import Member, Piece, RayCrew, lost

logger = logging.getLogger("umbel")
_BY_SPEC = (Aggregator.admit, Summing.admit, Concat.admit, QFair.admit)  # of the updates before, they see the spec
_BUDGET = 1 << 30  # bytes of updates that may come to this process so that no actor is idle at the end of an exchange
_AT_ONCE = 1 << 27  # bytes of updates that come in one piece
_EACH = 4  # pieces that an actor does of clients that make up no whole shard, so that all end at about the same time
_LIVES = 3  # actors that may be lost with the same client
_PATIENCE = 30.0  # seconds without any actor after which that is said


@final
class RayRunner:
    """A `Runner` of the engine.

    Args:
        clients: who there is.
        crew: the actors.
        key: of the app.
        states: where clients' states are kept.
        grouped: are clients trained together?

    Attributes:
        spent: seconds by what they went to, over all processes.
    """

    punctual = True

    def __init__(self, clients: Clients, crew: RayCrew, key: int, states: ClientStates, *, grouped: bool) -> None:
        self._clients, self._crew, self._key, self._states = clients, crew, key, states
        self._ray, self._lost, self._grouped = crew.ray, lost(crew.ray), grouped
        self._number = -1  # of the exchange
        self._leased = False  # was anybody asked?
        self._question: Question
        self._folding: Folding
        self._asked: list[Any] = []  # the question in Ray's memory
        self._queue: deque[Piece] = deque()
        self._pieces: dict[str, Piece] = {}  # by client
        self._events: list[Event] = []
        self._homes: dict[str, Member] = {}  # who did the piece that began with this client, and so has its data
        self._full: set[str] = set()  # devices of which was said that they are full
        self._large: set[str] = set()  # clients that did not fit on one that nobody else computed on
        self.spent: dict[str, float] = {"training": 0.0, "moving": 0.0, "folding": 0.0, "waiting": 0.0}

    def population(self, at_least: int, wait: float) -> Population:
        """All clients; none will come later."""
        del at_least, wait
        return self._clients.population

    # --- an exchange -------------------------------------------------------------------------

    def open(self, question: Question, cohort: int) -> None:
        """Begin an exchange."""
        del cohort
        self._question, self._folding = question, Folding(question, self._states)
        self._number = next(self._crew.exchanges)
        self._crew.abandon()  # what an error left
        self._queue.clear()
        self._pieces, self._events, self._asked, self._leased = {}, [], [], False
        self._large.clear()
        self._crew.recruit()

    def lease(self, tasks: Sequence[tuple[str, int]]) -> None:
        """Put tasks in the queue; they come in order of places."""
        first, opening = len(self._pieces), not self._leased
        self._leased = True
        placed = [(client, attempt, first + i) for i, (client, attempt) in enumerate(tasks)]
        if opening and self._grouped and self._question.kind == "train":
            ends = accumulate((len(group) for group in groups(tasks, together=True)), initial=0)
            parts = [placed[begin:end] for begin, end in pairwise(ends)]
            pieces = [
                self._piece(part, folds=self._can_fold and _is_in_one_shard(part), together=True) for part in parts
            ]
        else:
            whole = self._whole_shards(len(placed)) * SHARD if opening else 0
            pieces = [self._piece(part, folds=True) for part in _parts(placed[:whole], SHARD)]
            pieces += [self._piece(part) for part in _parts(placed[whole:], self._size(len(placed) - whole))]
        self._know(pieces)
        self._queue += pieces
        self._feed()

    def _piece(
        self,
        tasks: Iterable[Asked],
        *,
        folds: bool = False,
        together: bool = False,
        lost: int = 0,
        quiet: bool = False,
    ) -> Piece:
        return Piece(self._number, list(tasks), folds, together, lost=lost, suspect=lost > 0, quiet=quiet)

    def _know(self, pieces: Iterable[Piece]) -> None:
        for piece in pieces:
            self._pieces |= {client: piece for client, _, _ in piece.tasks}

    @property
    def _can_fold(self) -> bool:
        """May actors fold? Not where an aggregator may look at all that was folded before."""
        aggregators = [self._question.aggregator, *self._question.extra_aggregators.values()]
        return all(a is not None and type(a).admit in _BY_SPEC for a in aggregators)

    def _whole_shards(self, clients: int) -> int:
        """How many shards actors fold: as many as all of them get the same number of, if the rest is not too much."""
        if not self._can_fold:
            return 0
        even = clients // SHARD // len(self._crew.members) * len(self._crew.members)
        too_much = (clients - even * SHARD) * self._bytes() > _BUDGET
        return -(-clients // SHARD) if too_much else even

    def _size(self, clients: int) -> int:
        """How many clients make a piece."""
        fair = -(-clients // (len(self._crew.members) * _EACH))
        return max(1, min(SHARD, fair, _AT_ONCE // max(1, self._bytes())))

    def _bytes(self) -> int:
        """The size of an update, about."""
        return self._question.sent.nbytes if self._question.sent is not None else 0

    def wait(self, until: float) -> Sequence[Event]:
        """Block until actors have answered."""
        del until
        while not self._events:
            self._work()
        events, self._events = self._events, []
        return events

    def drop(self, client: str, attempt: int) -> None:
        """Throw an answer away: it is not folded, and goes with the exchange."""

    def revoke(self, clients: Sequence[str]) -> None:
        """Nobody starts with these any more."""
        del clients
        self._queue.clear()

    def close(self, close: Close) -> Reduced:
        """End the exchange."""
        begin = time.perf_counter()
        reduced = self._folding.close(close)
        self.spent["folding"] += time.perf_counter() - begin
        self._pieces, self._asked = {}, []
        self._queue.clear()
        self._crew.abandon()
        return reduced

    # --- actors at work ----------------------------------------------------------------------

    def _work(self) -> None:
        """Give the actors work, and hear what they have done."""
        self._feed()
        # of each the first: it does them in order
        heads = ((m, m.flight[0].reporting if m.flight else m.starting) for m in self._crew.members)
        sources = {ref: member for member, ref in heads if ref is not None}
        refs = list(sources)
        ready, _ = self._ray.wait(refs, num_returns=1, timeout=_PATIENCE)
        if not ready and not any(m.flight for m in self._crew.members):
            logger.warning(
                "no-workers: Ray has started no worker for %.0f seconds: it has %s, and free are %s",
                _PATIENCE,
                self._ray.cluster_resources(),
                self._ray.available_resources(),
            )
            self._crew.recruit()
        if len(refs) > 1:
            ready, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0)
        for ref in ready:
            if sources[ref] in self._crew.members:  # it was not sent away when another one was buried
                self._hear(sources[ref], ref)

    def _feed(self) -> None:
        """Give actors that have room the next pieces, in turn; an actor first what it did in the round before."""
        free = deque(member for member in self._crew.members if member.room)
        while self._queue and free:
            member = free.popleft()
            if (piece := self._choose(member)) is not None:
                self._queue.remove(piece)
                self._send(member, piece)
                if member.room:
                    free.append(member)

    def _choose(self, member: Member) -> Piece | None:
        fit = (piece for piece in self._queue if member.takes(piece))
        mine = (p for p in self._queue if self._homes.get(p.tasks[0][0]) is member and member.takes(p))
        return next(chain(mine if self._homes else (), fit), None)

    def _send(self, member: Member, piece: Piece) -> None:
        begin = time.perf_counter()
        names = [client for client, _, _ in piece.tasks]
        stateful = self._states.stateful(names)
        order = Order(
            tasks=piece.tasks,
            cohort=Cohort.of(list(names), self._clients, stateful),
            states={client: self._states.read(client) for client in stateful},
            folds=piece.folds,
            together=piece.together,
            alone=frozenset(self._large.intersection(names) if self._crew.is_shared(member, surely=False) else names),
        )
        work = member.actor.work.options(num_returns=2)
        piece.reporting, piece.made = work.remote(self._key, self._number, self._broadcast(), seal(order))
        piece.sent = time.monotonic()
        member.flight.append(piece)
        self.spent["moving"] += time.perf_counter() - begin

    def _broadcast(self) -> list[Any]:
        """The question in Ray's memory, once per exchange; in a list, so that Ray does not unpickle it each time."""
        if not self._asked:
            question = self._question
            if not any(piece.folds for piece in self._queue) and not any(p.folds for p in self._pieces.values()):
                question = replace(question, aggregator=None, extra_aggregators={})
            self._asked = [self._ray.put(seal(question))]
        return self._asked

    def _hear(self, member: Member, ref: Any) -> None:
        try:
            said = self._ray.get(ref)
        except self._lost as error:
            self._bury(member, error)
            return
        except self._ray.exceptions.TaskCancelledError as error:
            if member.flight and member.flight[0].exchange == self._number:  # a client raised KeyboardInterrupt
                self._bury(member, error)
                return
            said = None  # of an exchange that is over
        except self._ray.exceptions.RayTaskError as error:
            raise RunError(
                f"a Ray worker could not do its tasks: {error}",
                advice="see that the same Umbel, and what the strategy imports, is installed on all machines",
            ) from error
        if ref == member.starting:
            member.starting, member.started = None, said
            return
        self._crew.answered()
        piece = next(p for p in member.flight if p.reporting == ref)
        member.flight.remove(piece)
        if piece.exchange == self._number:
            self._take(member, piece, said)

    def _take(self, member: Member, piece: Piece, report: Report) -> None:
        what, advice = report.broken
        if what:
            raise RunError(what, advice=advice)
        member.pace = sum(report.seconds.values()) - report.seconds["waiting"]
        self._homes[piece.tasks[0][0]] = member
        for name, seconds in report.seconds.items():
            self.spent[name] += seconds
        if report.full:
            self._make_room(member, piece, *report.full)
        elif report.misfit:
            self._again(piece, piece.tasks, lost=piece.lost)
        else:
            self._done(piece, report)

    def _done(self, piece: Piece, report: Report) -> None:
        piece.report, piece.reporting = report, None
        if piece.quiet:
            return
        for client, attempt, _ in piece.tasks:
            failure = report.failures.get(client)
            self._events.append(Failed(client, attempt, failure) if failure else Arrived([(client, attempt)]))

    def _again(self, piece: Piece, tasks: Sequence[Asked], *, lost: int = 0, quiet: bool = False) -> None:
        """Do these tasks of a piece again, of a group all; their updates come to this process."""
        if piece.together:
            self._put_first([self._piece(piece.tasks, together=True, lost=lost, quiet=quiet)])
        else:
            parts = _parts(tasks, self._size(len(tasks)))
            self._put_first([self._piece(part, lost=lost, quiet=quiet) for part in parts])

    def _put_first(self, pieces: Sequence[Piece]) -> None:
        self._know(pieces)
        self._queue.extendleft(reversed(pieces))

    # --- folding -----------------------------------------------------------------------------

    def fold(self, clients: Sequence[Asked]) -> Sequence[Failed]:
        """Fold the updates of these clients, or merge the shards that they make up."""
        refused: list[Failed] = []
        for piece, tasks in groupby(clients, key=lambda task: self._settled(task[0])):
            refused += self._fold(piece, list(tasks))
        return refused

    def _settled(self, client: str) -> Piece:
        """The client's piece; waits for it, where it is done again."""
        while (piece := self._pieces[client]).report is None:
            self._work()
        return piece

    def _fold(self, piece: Piece, tasks: Sequence[Asked]) -> list[Failed]:
        assert piece.report is not None
        failures = piece.report.failures
        if piece.folds and len(tasks) == len(piece.tasks) - len(failures):
            if self._join(piece):
                return []
        elif not piece.folds and (done := self._fetch(piece)) is not None:
            return self._fold_each(piece, tasks, done)
        self._again(piece, tasks, quiet=True)
        return list(self.fold(tasks))

    def _fetch(self, piece: Piece) -> Any:
        """What an actor made; None if it is lost."""
        if piece.made is None:  # its only client has cost too many of them
            return []
        begin = time.perf_counter()
        try:
            made = unseal(self._ray.get(piece.made))
        except self._lost as error:
            logger.warning(
                "worker-lost: a Ray worker's results are lost (%s); %d tasks are done again",
                type(error).__name__,
                len(piece.tasks),
            )
            return None
        finally:
            piece.made = None
            self.spent["moving"] += time.perf_counter() - begin
        return made

    def _join(self, piece: Piece) -> bool:
        """Merge a folded shard, unless it is lost or does not fit."""
        if (made := self._fetch(piece)) is None:
            return False
        begin = time.perf_counter()
        try:
            self._folding.join(piece.tasks[0][2], *made)
        except BadUpdate:
            return False
        finally:
            self.spent["folding"] += time.perf_counter() - begin
        return True

    def _fold_each(self, piece: Piece, tasks: Sequence[Asked], done: Sequence[Any]) -> list[Failed]:
        assert piece.report is not None
        begin = time.perf_counter()
        by_client = dict(zip((c for c, _, _ in piece.tasks if c not in piece.report.failures), done, strict=True))
        failures = piece.report.failures  # of these clients only where they were done again
        refused = [Failed(client, attempt, failures[client]) for client, attempt, _ in tasks if client in failures]
        answers = [
            Answered(client, attempt, place, by_client[client].update, by_client[client].state)
            for client, attempt, place in tasks
            if client not in failures
        ]
        refused += self._folding.fold(answers)
        self.spent["folding"] += time.perf_counter() - begin
        return refused

    # --- actors that are lost ----------------------------------------------------------------

    def _bury(self, member: Member, error: BaseException) -> None:
        """An actor is lost: what it had not answered is done again by another one, all but what its clock ended."""
        doing = list(member.flight)
        mine = [piece for piece in doing if piece.exchange == self._number]
        slow = self._too_slow(member, mine[0]) if mine and mine[0] is doing[0] else None
        if slow is not None:
            self._crew.answered()
        why = self._crew.bury(member, error)
        self._forget(member)
        logger.warning(
            "worker-lost: a Ray worker %s; %d tasks are done again",
            f"was ended while {slow.client!r} was at work for too long" if slow else f"was lost ({why})",
            sum(len(piece.tasks) for piece in mine) - (slow is not None),
        )
        # it did them one after the other, so the first is to blame, or one behind it, if an answer was lost with it
        for piece in mine:
            piece.suspect = True
        self._queue.extendleft(reversed([piece for piece in mine if piece is not doing[0]]))
        if slow is not None:
            self._go_on_without(mine[0], slow)
        elif mine and mine[0] is doing[0]:
            self._once_more(doing[0], why)

    def _forget(self, member: Member) -> None:
        self._homes = {client: home for client, home in self._homes.items() if home is not member}

    def _too_slow(self, member: Member, piece: Piece) -> Failure | None:
        """The failure of the client that took too long, if that is why the actor is lost."""
        words = self._crew.last_words(member)
        if words is None or words.exchange != piece.exchange:
            return None
        label = self._question.label
        message = f"its {label} handler took longer than {self._crew.limit:g} seconds and was ended"
        slow = (client for client, _, place in piece.tasks if place == words.place)
        return next((self._failure(client, message, words.traceback) for client in slow), None)

    def _failure(self, client: str, message: str, traceback: str = "") -> Failure:
        return Failure(
            client=client,
            round=self._question.round,
            kind=self._question.label,
            code=ClientFailed.code,
            message=message,
            traceback=traceback,
        )

    def _fail(self, task: Asked, failure: Failure, *, quiet: bool) -> None:
        """A client's task has failed for good, and no actor says so."""
        piece = self._piece([task], quiet=quiet)
        self._know([piece])
        self._done(piece, Report(failures={failure.client: failure}))

    def _go_on_without(self, piece: Piece, slow: Failure) -> None:
        """One client took too long; the others of its piece are done again.

        Those before it are known to be quick, and are not put into one piece with those behind it, which may be slow as
        well: so nobody is trained a third time. Of a group each is alone: without that client it is no longer that one.
        """
        at = next(i for i, (client, _, _) in enumerate(piece.tasks) if client == slow.client)
        self._fail(piece.tasks[at], slow, quiet=piece.quiet)
        sides = (piece.tasks[:at], piece.tasks[at + 1 :])
        size = 1 if piece.together else self._size(len(piece.tasks))
        parts = [part for side in sides for part in _parts(side, size)]
        self._put_first([self._piece(part, quiet=piece.quiet) for part in parts])

    def _once_more(self, piece: Piece, why: str) -> None:
        piece.lost += 1
        if piece.lost < (_LIVES if piece.together or len(piece.tasks) == 1 else 2):
            self._queue.appendleft(piece)
        elif len(piece.tasks) > 1:  # of a group one is surely to blame; without that client it is no longer that group
            lost = _LIVES - 1 if piece.together else 1
            self._put_first([self._piece([task], lost=lost, quiet=piece.quiet) for task in piece.tasks])
        else:
            ((client, _, _),) = piece.tasks
            message = f"its {self._question.label} handler cost {_LIVES} Ray workers their lives ({why})"
            self._fail(piece.tasks[0], self._failure(client, message), quiet=piece.quiet)

    # --- devices that are full ---------------------------------------------------------------

    def _make_room(self, member: Member, piece: Piece, client: str, device: str) -> None:
        """A device's memory does not suffice for all its actors: this one ends, and others do what it did."""
        if not self._crew.is_shared(member, surely=True):  # it had the device to itself
            self._large.add(client)
            self._queue.appendleft(piece)
            return
        if device not in self._full:
            self._full.add(device)
            logger.warning(
                "device-full: the memory of %s does not suffice for so many workers: the run goes on with fewer", device
            )
        mine = [piece, *(other for other in member.flight if other.exchange == self._number)]
        self._queue.extendleft(reversed(mine))
        self._crew.retire(member)
        self._forget(member)


def _is_in_one_shard(tasks: Sequence[Asked]) -> bool:
    return tasks[0][2] // SHARD == tasks[-1][2] // SHARD


def _parts(tasks: Sequence[Asked], size: int) -> list[Sequence[Asked]]:
    return [tasks[i : i + size] for i in range(0, len(tasks), size)]


__all__ = ["RayRunner"]
