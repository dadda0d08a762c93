"""The `inline` engine: every task in the calling thread, one after the other. Breakpoints work."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, final

from umbel.client.context import ClientInfo
from umbel.client.work import Bench, Done
from umbel.engine.checksum import Checksum
from umbel.engine.exchange import Arrived, Close, Event, Failed
from umbel.engine.question import Question
from umbel.engine.reduction import Reduced, Reduction
from umbel.errors import BadUpdate, Failure, UmbelError
from umbel.sample import Population
from umbel.update import Metrics


class ClientStates(Protocol):
    """Where clients' states are kept."""

    def read(self, client: str) -> Mapping[str, Any]:
        """The client's state as of the last exchange it was counted in."""

    def write(self, sequence: int, states: Mapping[str, Mapping[str, Any]]) -> None:
        """The exchange with this number is over: the new states of clients that were counted."""


class Clients(Protocol):
    """The clients of a simulation, by name."""

    @property
    def population(self) -> Population:
        """All names and labels."""

    def __getitem__(self, name: str) -> ClientInfo: ...


@final
class Inline:
    """A `Runner` of the engine.

    Args:
        clients: who there is.
        bench: where tasks are done.
        states: where clients' states are kept.
        debug: let the user's exceptions through.
    """

    punctual = True

    def __init__(self, clients: Clients, bench: Bench, states: ClientStates, *, debug: bool = False) -> None:
        self._clients, self._bench, self._states, self._debug = clients, bench, states, debug
        self._queue: deque[tuple[str, int]] = deque()
        self._done: dict[str, Done] = {}
        self._after: dict[str, Mapping[str, Any]] = {}
        self._question: Question
        self._reduction: Reduction
        self._checksum: Checksum

    def population(self, at_least: int, wait: float) -> Population:
        """All clients; none will come later."""
        del at_least, wait
        return self._clients.population

    def open(self, question: Question) -> None:
        """Begin an exchange."""
        self._question, self._reduction = question, Reduction(question)
        self._checksum = Checksum(question.model, *question.extra.values())
        self._queue.clear()
        self._done.clear()
        self._after.clear()

    def lease(self, tasks: Sequence[tuple[str, int]]) -> None:
        """Put tasks in the queue."""
        self._queue.extend(tasks)

    def wait(self, until: float) -> Sequence[Event]:
        """Do the next task."""
        del until
        client, attempt = self._queue.popleft()
        done = self._bench.do(self._question, self._clients[client], self._states.read(client), debug=self._debug)
        self._checksum.check(f"round {self._question.round}, client {client!r}, {self._question.label}: its code")
        if isinstance(done, Failure):
            return [Failed(client, attempt, done)]
        self._done[client] = done
        return [Arrived(client, attempt)]

    def fold(self, clients: Sequence[tuple[str, int, int]]) -> Sequence[Failed]:
        """Fold the updates of these clients; those that do not fit the others are given back."""
        refused: list[Failed] = []
        for client, attempt, place in clients:
            done = self._done.pop(client)
            try:
                self._fold(client, place, done)
            except Exception as error:  # noqa: BLE001  # a task ends here: one update never ends a run
                refused.append(Failed(client, attempt, self._refusal(client, error)))
        return refused

    def _fold(self, client: str, place: int, done: Done) -> None:
        if isinstance(done.update, Metrics):
            self._reduction.note(client, done.update.weight, done.update.values)
            return
        update = done.update
        if self._question.chain.steps:
            update = self._question.chain.ingest(update, self._question.plans)
        self._reduction.fold(client, place, update)
        if done.state is not None:
            self._after[client] = done.state

    def _refusal(self, client: str, error: Exception) -> Failure:
        ours = isinstance(error, UmbelError)
        return Failure(
            client=client,
            round=self._question.round,
            kind=self._question.label,
            code=error.code if isinstance(error, UmbelError) else BadUpdate.code,
            message=str(error) if ours else f"its update could not be folded: {type(error).__name__}: {error}",
            traceback="" if ours else "".join(traceback.format_exception(error)),
        )

    def drop(self, client: str, attempt: int) -> None:
        """Throw an answer away."""
        del attempt
        self._done.pop(client, None)

    def revoke(self, clients: Sequence[str]) -> None:
        """Take these clients' tasks out of the queue."""
        gone = set(clients)
        self._queue = deque(task for task in self._queue if task[0] not in gone)

    def close(self, close: Close) -> Reduced:
        """End the exchange; states are kept only if it reached its quorum."""
        if close.met and self._after:
            self._states.write(self._question.sequence, self._after)
        return self._reduction.finish()


__all__ = ["ClientStates", "Clients", "Inline"]
