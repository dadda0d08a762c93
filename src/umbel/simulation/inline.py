"""The `inline` engine: every task in the calling thread, one after the other. Breakpoints work."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import final

from umbel.client.work import Bench, Done
from umbel.engine.checksum import Checksum
from umbel.engine.exchange import Arrived, Close, Event, Failed
from umbel.engine.folding import Answered, ClientStates, Folding
from umbel.engine.question import Question
from umbel.engine.reduction import Reduced
from umbel.errors import Failure
from umbel.sample import Population
from umbel.simulation.groups import Clients, Group, groups


@final
class Inline:
    """A `Runner` of the engine.

    Attributes:
        queue: groups of tasks that are not done, each (client, attempt); most groups have one.
        spent: seconds by what they went to.

    Args:
        clients: who there is.
        bench: where tasks are done.
        states: where clients' states are kept.
        grouped: are clients trained together?
        debug: let the user's exceptions through.
    """

    punctual = True

    def __init__(
        self, clients: Clients, bench: Bench, states: ClientStates, *, grouped: bool = False, debug: bool = False
    ) -> None:
        self._clients, self._bench, self._states, self._debug = clients, bench, states, debug
        self._grouped, self._opened = grouped, False
        self.queue: deque[Group] = deque()
        self._doing: Iterator[Event] = iter(())  # what is left of the group that is being done
        self._half = 0  # how many tasks that is
        self.spent = {"training": 0.0, "folding": 0.0}
        self._done: dict[str, Done] = {}
        self._question: Question
        self._checksum: Checksum
        self._folding: Folding

    def population(self, at_least: int, wait: float) -> Population:
        """All clients; none will come later."""
        del at_least, wait
        return self._clients.population

    def open(self, question: Question, cohort: int) -> None:
        """Begin an exchange."""
        del cohort
        self._question, self._folding = question, Folding(question, self._states)
        self._checksum = Checksum(question.model, *question.extra.values())
        self.queue.clear()
        self._done.clear()
        self._opened, self._doing, self._half = False, iter(()), 0

    def lease(self, tasks: Sequence[tuple[str, int]]) -> None:
        """Put tasks in the queue."""
        self.queue.extend(groups(tasks, together=self._grouped and self._question.kind == "train" and not self._opened))
        self._opened = True

    def wait(self, until: float) -> Sequence[Event]:
        """Do the next task."""
        del until
        event = next(self._doing, None)
        if event is None:
            group = self.queue.popleft()
            self._doing, self._half = self._do(group), len(group)
            event = next(self._doing)
        self._half -= 1
        return [event]

    def _do(self, group: Group) -> Iterator[Event]:
        """Do a group of tasks, one client after the other where that is all the same."""
        clients = [self._clients[client] for client, _ in group]
        begin = time.perf_counter()
        results = self._bench.do_many(self._question, clients, self._states.read, debug=self._debug)
        for (client, attempt), done in zip(group, results, strict=True):
            self._checksum.check(f"round {self._question.round}, client {client!r}, {self._question.label}: its code")
            self.spent["training"] += time.perf_counter() - begin
            if isinstance(done, Failure):
                yield Failed(client, attempt, done)
            else:
                self._done[client] = done
                yield Arrived([(client, attempt)])
            begin = time.perf_counter()

    def fold(self, clients: Sequence[tuple[str, int, int]]) -> Sequence[Failed]:
        """Fold the updates of these clients; those that do not fit the others are given back."""
        begin = time.perf_counter()
        done = [(client, attempt, place, self._done.pop(client)) for client, attempt, place in clients]
        refused = self._folding.fold([Answered(c, a, p, d.update, d.state) for c, a, p, d in done])
        self.spent["folding"] += time.perf_counter() - begin
        return refused

    @property
    def between(self) -> bool:
        """Is no group half done, so that another engine may take over?"""
        return self._half == 0

    def rest(self) -> tuple[Question, Folding, list[Group]]:
        """What is left of the exchange, for an engine that takes it over."""
        return self._question, self._folding, list(self.queue)

    def drop(self, client: str, attempt: int) -> None:
        """Throw an answer away."""
        del attempt
        self._done.pop(client, None)

    def revoke(self, clients: Sequence[str]) -> None:
        """Take these clients' tasks out of the queue."""
        gone = set(clients)
        self.queue = deque(group for group in self.queue if not gone.issuperset(client for client, _ in group))

    def close(self, close: Close) -> Reduced:
        """End the exchange."""
        self._bench.rest()
        return self._folding.close(close)


__all__ = ["Inline"]
