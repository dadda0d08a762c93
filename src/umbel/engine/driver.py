"""The one loop: an exchange as a generator of effects, and the plain driver that carries them out.

The generator does no I/O. It yields what is to be done and receives what came of it; whoever drives it decides how:
`drive` in the calling thread (simulations, notebooks, ``breakpoint()``), or an asyncio driver on a server.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, final

from umbel.engine.columns import Columns
from umbel.engine.exchange import Arrived, Close, DeadlinePassed, Drop, Event, Exchange, Failed, Fold, Lease, Revoke
from umbel.engine.history import History
from umbel.engine.ports import Clock, Commit, Observer, Record, Runner, Store
from umbel.engine.question import Question
from umbel.engine.reduction import Reduced
from umbel.sample import Population


@final
@dataclass(frozen=True, slots=True)
class Gather:
    """Who is there? Gives a `Population`."""

    at_least: int
    wait: float


@final
@dataclass(frozen=True, slots=True)
class Open:
    """Begin an exchange. Gives the time."""

    question: Question
    cohort: int


@final
@dataclass(frozen=True, slots=True)
class Wait:
    """Wait for events until that time. Gives the events."""

    until: float


@final
@dataclass(frozen=True, slots=True)
class Finish:
    """The exchange is over. Gives what was folded."""

    close: Close


@final
@dataclass(frozen=True, slots=True)
class Keep:
    """Make this durable."""

    what: Record | Commit


@final
@dataclass(frozen=True, slots=True)
class Mark:
    """A round ended with this exchange; its commit is made durable later."""

    sequence: int


@final
@dataclass(frozen=True, slots=True)
class Publish:
    """Tell who watches that a round was committed. Gives a reason to end the run, or ""."""

    history: History


Effect = Gather | Open | Lease | Wait | Fold | Drop | Revoke | Finish | Keep | Mark | Publish
Loop = Generator[Effect, Any, Any]


def conduct(question: Question, exchange: Exchange, deadline: float) -> Generator[Effect, Any, tuple[Close, Reduced]]:
    """One exchange from its opening to its close.

    Args:
        question: what is asked.
        exchange: the machine, not yet stepped.
        deadline: seconds from the opening to the close.
    """
    opened: float = yield Open(question, len(exchange.places))
    events: list[Event] = []
    while True:
        refused: list[Failed] | None = None
        for instruction in exchange.step(events):
            if isinstance(instruction, Close):
                return instruction, (yield Finish(instruction))
            came = yield instruction
            if isinstance(instruction, Fold):
                refused = [*(refused or ()), *came]
        # after a fold the machine hears at once what was refused; then it may close
        events = list(refused) if refused is not None else list((yield Wait(opened + deadline)))


def drive(loop: Loop, runner: Runner, store: Store, clock: Clock, observer: Observer) -> Any:
    """Carry out a loop in the calling thread, and return what it returns."""
    answer: Any = None
    while True:
        try:
            effect = loop.send(answer)
        except StopIteration as end:
            return end.value
        answer = _perform(effect, runner, store, clock, observer)


def _perform(effect: Effect, runner: Runner, store: Store, clock: Clock, observer: Observer) -> Any:
    match effect:
        case Gather():
            return _gather(effect, runner)
        case Open():
            opened = runner.open(effect.question, effect.cohort)
            observer.round_opened(effect.question.round, effect.cohort)
            return clock.now() if opened is None else opened
        case Lease():
            runner.lease(effect.tasks)
        case Wait():
            return _wait(effect, runner, clock, observer)
        case Fold():
            return runner.fold(effect.clients)
        case Drop():
            runner.drop(effect.client, effect.attempt)
        case Revoke():
            runner.revoke(effect.clients)
        case Finish():
            return runner.close(effect.close)
        case Keep(what=Commit() as commit):
            store.commit(commit)
        case Keep(what=Record() as record):
            store.record(record)
        case Mark():
            store.mark(effect.sequence)
        case Publish():
            return observer.committed(effect.history)
    return None


def _gather(effect: Gather, runner: Runner) -> Population:
    return runner.population(effect.at_least, effect.wait)


def _wait(effect: Wait, runner: Runner, clock: Clock, observer: Observer) -> list[Event]:
    events = list(runner.wait(effect.until))
    for event in events:
        if isinstance(event, Arrived):
            observer.clients_done(Columns.of(event.tasks, 2).columns[0])
        elif isinstance(event, Failed):
            observer.clients_done([event.client])
    if not runner.punctual and clock.now() >= effect.until:
        events.append(DeadlinePassed())
    return events


__all__ = ["Effect", "Finish", "Gather", "Keep", "Loop", "Mark", "Open", "Publish", "Wait", "conduct", "drive"]
