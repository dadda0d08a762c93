"""The `inline` engine: every task in the calling thread, one after the other. Breakpoints work."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import final

from umbel.client.work import Bench, Done
from umbel.engine.checksum import Checksum
from umbel.engine.exchange import Arrived, Close, Event, Failed
from umbel.engine.question import Question
from umbel.engine.reduction import Reduced
from umbel.errors import Failure
from umbel.sample import Population
from umbel.simulation.folding import Answered, Clients, ClientStates, Folding


@final
class Inline:
    """A `Runner` of the engine.

    Attributes:
        queue: tasks that are not done, (client, attempt).
        spent: seconds by what they went to.

    Args:
        clients: who there is.
        bench: where tasks are done.
        states: where clients' states are kept.
        debug: let the user's exceptions through.
    """

    punctual = True

    def __init__(self, clients: Clients, bench: Bench, states: ClientStates, *, debug: bool = False) -> None:
        self._clients, self._bench, self._states, self._debug = clients, bench, states, debug
        self.queue: deque[tuple[str, int]] = deque()
        self.spent = {"training": 0.0, "folding": 0.0}
        self._done: dict[str, Done] = {}
        self._question: Question
        self._checksum: Checksum
        self._folding: Folding

    def population(self, at_least: int, wait: float) -> Population:
        """All clients; none will come later."""
        del at_least, wait
        return self._clients.population

    def open(self, question: Question) -> None:
        """Begin an exchange."""
        self._question, self._folding = question, Folding(question, self._states)
        self._checksum = Checksum(question.model, *question.extra.values())
        self.queue.clear()
        self._done.clear()

    def lease(self, tasks: Sequence[tuple[str, int]]) -> None:
        """Put tasks in the queue."""
        self.queue.extend(tasks)

    def wait(self, until: float) -> Sequence[Event]:
        """Do the next task."""
        del until
        client, attempt = self.queue.popleft()
        begin = time.perf_counter()
        done = self._bench.do(self._question, self._clients[client], self._states.read(client), debug=self._debug)
        self._checksum.check(f"round {self._question.round}, client {client!r}, {self._question.label}: its code")
        self.spent["training"] += time.perf_counter() - begin
        if isinstance(done, Failure):
            return [Failed(client, attempt, done)]
        self._done[client] = done
        return [Arrived(client, attempt)]

    def fold(self, clients: Sequence[tuple[str, int, int]]) -> Sequence[Failed]:
        """Fold the updates of these clients; those that do not fit the others are given back."""
        begin = time.perf_counter()
        done = [(client, attempt, place, self._done.pop(client)) for client, attempt, place in clients]
        refused = self._folding.fold([Answered(c, a, p, d.update, d.state) for c, a, p, d in done])
        self.spent["folding"] += time.perf_counter() - begin
        return refused

    def rest(self) -> tuple[Question, Folding, list[tuple[str, int]]]:
        """What is left of the exchange, for an engine that takes it over."""
        return self._question, self._folding, list(self.queue)

    def drop(self, client: str, attempt: int) -> None:
        """Throw an answer away."""
        del attempt
        self._done.pop(client, None)

    def revoke(self, clients: Sequence[str]) -> None:
        """Take these clients' tasks out of the queue."""
        gone = set(clients)
        self.queue = deque(task for task in self.queue if task[0] not in gone)

    def close(self, close: Close) -> Reduced:
        """End the exchange."""
        return self._folding.close(close)


__all__ = ["Inline"]
