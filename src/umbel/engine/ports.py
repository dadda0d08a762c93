"""What the engine needs from outside: who does the tasks, where state is kept, what time it is, who watches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, final

from umbel.arrays import Arrays
from umbel.engine.exchange import Close, Event, Failed
from umbel.engine.history import History, Row
from umbel.engine.question import Answer, Question
from umbel.engine.reduction import Reduced
from umbel.errors import Failure
from umbel.sample import Population


class Runner(Protocol):
    """Does the tasks of an exchange: in this process, in workers, or on nodes.

    Attributes:
        punctual: is nothing ever late here, so that deadlines do not apply?
        spent: seconds by what they went to, over all who work: "training", "moving", "folding", "waiting".
    """

    punctual: bool

    @property
    def spent(self) -> Mapping[str, float]:
        """Seconds by what they went to, over all who work."""

    def population(self, at_least: int, wait: float) -> Population:
        """Who is there; waits up to ``wait`` seconds for ``at_least`` clients."""

    def open(self, question: Question, cohort: int) -> float | None:
        """An exchange with so many clients begins; or goes on, that another process opened then, by the clock."""

    def lease(self, tasks: Sequence[tuple[str, int]]) -> None:
        """Ask these clients; each with the number of the attempt."""

    def wait(self, until: float) -> Sequence[Event]:
        """Block until something happened, or until that time of the clock; then nothing is returned."""

    def fold(self, clients: Sequence[tuple[str, int, int]]) -> Sequence[Failed]:
        """Fold the waiting updates of these (client, attempt, place); returns those that turned out bad."""

    def drop(self, client: str, attempt: int) -> None:
        """Throw an answer away."""

    def revoke(self, clients: Sequence[str]) -> None:
        """Tell these clients to stop."""

    def close(self, close: Close) -> Reduced:
        """The exchange is over: keep the state of who was folded, and give the folded whole."""


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> float:
        """Seconds since some moment; never goes back."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """What becomes durable together at the end of a round.

    Attributes:
        rows: the rows of the history since the commit before.
        state: what ``main`` committed: a tree of plain values, `Arrays` and dataclasses.
        transforms: states of the transform chains, by a name for the chain.
        sequence: number of the last exchange of the round.
        failures: who failed in these rounds, and why.
        counted: how often each client was counted in these rounds.
        clients: each client's metrics in the last evaluation of these rounds, if there was one.
        best: the model of the best round so far, if that is one of these rounds.
        opening: of the first commit, what was asked before the first round. None: unknown, or not the first.
    """

    rows: tuple[Row, ...]
    state: Any
    transforms: Mapping[str, Any] = field(default_factory=dict)
    sequence: int = 0
    failures: tuple[Failure, ...] = ()
    counted: Mapping[str, int] = field(default_factory=dict)
    clients: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    best: Arrays | None = None
    opening: tuple[Record, ...] | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A finished exchange, kept until its round commits.

    Attributes:
        round, call: the n-th call of the round.
        digest: of the call's arguments.
        sequence: the exchange's number in the run.
        answer: what came out.
        transforms: the states of its transform chain afterwards, by the chain's name.
    """

    round: int
    call: int
    digest: Mapping[str, str]
    sequence: int
    answer: Answer
    transforms: Mapping[str, Any] = field(default_factory=dict)


class Store(Protocol):
    """Keeps a run. What is given is written in its order, and may be written while the run goes on.

    A commit is there in the next process, also after a loss of power, before `record` or `commit` returns the next
    time, and before the run returns. Of the records the last ones may be lost; what they stand for is done again.
    """

    def commits(self) -> Sequence[Commit]:
        """All commits so far, oldest first; all but the last without their state and their transforms'.

        Who was counted may be summed up in the last one.
        """

    def records(self) -> Sequence[Record]:
        """The exchanges finished since the last commit."""

    def record(self, record: Record) -> None:
        """Keep a finished exchange."""

    def mark(self, sequence: int) -> None:
        """A commit that ends with this exchange may come later, after exchanges that follow it.

        What clients' states were then must not be lost until the next mark or commit.
        """

    def commit(self, commit: Commit) -> None:
        """Keep the end of a round; the records before it are no longer needed.

        A commit of rounds that are there already changes nothing: Ctrl-C may have hidden that it was kept.
        """


class Observer(Protocol):
    """Is told what happens; for progress displays and callbacks."""

    def round_opened(self, round: int, cohort: int) -> None:
        """An exchange with so many clients began."""

    def clients_done(self, clients: Sequence[str]) -> None:
        """These clients answered, or failed."""

    def committed(self, history: History) -> str:
        """A round was committed; a reason to end the run here, or ""."""


__all__ = ["Clock", "Commit", "Observer", "Record", "Runner", "Store"]
