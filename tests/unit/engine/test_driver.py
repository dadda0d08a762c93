"""The loop and its plain driver, with a runner that is told what happens, and a clock that is told the time."""

# ruff: noqa: ARG002  # a port's methods take what they are given
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from umbel import aggregate
from umbel.arrays import Arrays
from umbel.engine.driver import Finish, Gather, Keep, Open, Publish, Wait, conduct, drive
from umbel.engine.exchange import Arrived, Close, DeadlinePassed, Event, Exchange, Failed, Fold, Lease, Lost
from umbel.engine.history import History, Row
from umbel.engine.ports import Commit, Record
from umbel.engine.question import Answer, Question
from umbel.engine.reduction import Reduced
from umbel.errors import Failure
from umbel.progress import Watch
from umbel.sample import Population
from umbel.store.memory import MemoryStore

SENT = Arrays({"w": [0.0]})
MEAN = aggregate.mean()
QUESTION = Question(
    kind="train", name="train", seed=0, round=3, call=1, model=SENT, aggregator=MEAN, expected=MEAN.expects(SENT)
)


def failure(client: str) -> Failure:
    return Failure(client=client, round=3, kind="train", code="client-failed", message="scripted")


class Scripted:
    """A runner whose events are written down beforehand: (when, what). Time passes when it waits."""

    def __init__(
        self, events: Sequence[tuple[float, Event]], *, refuse: Sequence[str] = (), punctual: bool = False
    ) -> None:
        self.punctual, self.spent = punctual, dict[str, float]()
        self.time = 100.0
        self.events, self.refuse = list(events), refuse
        self.said: list[Any] = []

    def now(self) -> float:
        return self.time

    def population(self, at_least: int, wait: float) -> Population:
        self.said.append(("population", at_least, wait))
        return Population(("a", "b"))

    def open(self, question: Question, cohort: int) -> None:
        self.said.append(("open", question.round, cohort))

    def lease(self, tasks: Sequence[tuple[str, int]]) -> None:
        self.said.append(("lease", *tasks))

    def wait(self, until: float) -> Sequence[Event]:
        if not self.events or self.events[0][0] > until:
            self.time = until
            return []
        self.time, event = self.events.pop(0)
        return [event]

    def fold(self, clients: Sequence[tuple[str, int, int]]) -> Sequence[Failed]:
        self.said.append(("fold", *clients))
        return [Failed(name, attempt, failure(name)) for name, attempt, _ in clients if name in self.refuse]

    def drop(self, client: str, attempt: int) -> None:
        self.said.append(("drop", client, attempt))

    def revoke(self, clients: Sequence[str]) -> None:
        self.said.append(("revoke", *clients))

    def close(self, close: Close) -> Reduced:
        self.said.append(("close", close.folded, close.met))
        return Reduced(names=list(close.folded))


def run(exchange: Exchange, runner: Scripted, deadline: float = 10.0) -> tuple[Close, Reduced]:
    found: tuple[Close, Reduced] = drive(conduct(QUESTION, exchange, deadline), runner, MemoryStore(), runner, Watch())
    return found


def test_everyone_answers() -> None:
    runner = Scripted([(101, Arrived([("b", 1)])), (102, Arrived([("a", 1)]))])
    close, reduced = run(Exchange(["a", "b"]), runner)
    assert (close.folded, close.met, reduced.names) == (("a", "b"), True, ["a", "b"])
    assert runner.said == [
        ("open", 3, 2),
        ("lease", ("a", 1), ("b", 1)),
        ("fold", ("a", 1, 0), ("b", 1, 1)),
        ("close", ("a", "b"), True),
    ]


def test_at_the_deadline_who_is_late_is_told_to_stop() -> None:
    runner = Scripted([(101, Arrived([("a", 1)])), (111, Arrived([("b", 1)]))])
    close, _ = run(Exchange(["a", "b"], quorum=0.5), runner, deadline=10)
    assert (close.folded, close.revoked, close.met) == (("a",), ("b",), True)
    assert runner.said[-2:] == [("revoke", "b"), ("close", ("a",), True)]
    assert runner.time == 110.0, "not a moment later"


def test_an_answer_at_the_deadline_counts() -> None:
    runner = Scripted([(110, Arrived([("a", 1)])), (110, Arrived([("b", 1)]))])
    close, _ = run(Exchange(["a", "b"], quorum=0.5), runner, deadline=10)
    assert "a" in close.folded


def test_where_nothing_is_late_there_is_no_deadline() -> None:
    """A simulation takes as long as it takes."""
    runner = Scripted([(10**6, Arrived([("a", 1)])), (10**7, Arrived([("b", 1)]))], punctual=True)
    runner.events = [(0, event) for _, event in runner.events]
    runner.time = 10**9
    close, _ = run(Exchange(["a", "b"]), runner)
    assert close.folded == ("a", "b")


def test_a_lost_one_is_asked_again_and_its_first_answer_is_dropped() -> None:
    runner = Scripted([(101, Lost("a", 1, failure("a"))), (102, Arrived([("a", 1)])), (103, Arrived([("a", 2)]))])
    close, _ = run(Exchange(["a"]), runner)
    assert close.folded == ("a",)
    assert runner.said[1:-1] == [("lease", ("a", 1)), ("lease", ("a", 2)), ("drop", "a", 1), ("fold", ("a", 2, 0))]


def test_who_is_refused_when_folded_makes_room_for_a_spare_at_once() -> None:
    runner = Scripted([(101, Arrived([("a", 1)])), (102, Arrived([("z", 1)]))], refuse=["a"])
    close, _ = run(Exchange(["a"], ["z"]), runner)
    assert (close.folded, [f.client for f in close.failures]) == (("z",), ["a"])
    assert ("lease", ("z", 1)) in runner.said


def test_a_refusal_may_cost_the_quorum() -> None:
    runner = Scripted([(101, Arrived([("a", 1)])), (102, Arrived([("b", 1)]))], refuse=["b"])
    close, _ = run(Exchange(["a", "b"]), runner)
    assert (close.met, close.folded) == (False, ("a",))


def test_an_empty_cohort_asks_nobody() -> None:
    runner = Scripted([])
    close, _ = run(Exchange([]), runner)
    assert (close.met, runner.said) == (True, [("open", 3, 0), ("close", (), True)])


def test_the_other_effects_reach_store_and_observer() -> None:
    runner, store = Scripted([]), MemoryStore()
    record = Record(round=1, call=1, digest={}, sequence=1, answer=Answer(value=None))
    seen: list[History] = []

    class Observer:
        def round_opened(self, round: int, cohort: int) -> None: ...

        def clients_done(self, clients: Sequence[str]) -> None: ...

        def committed(self, history: History) -> str:
            seen.append(history)
            return "enough"

    def loop() -> Any:
        population = yield Gather(2, 3.0)
        yield Keep(record)
        before = len(store.records())
        yield Keep(Commit(rows=(Row(round=1),), state={}))
        reason = yield Publish(History())
        return population.names, before, reason

    assert drive(loop(), runner, store, runner, Observer()) == (("a", "b"), 1, "enough")
    assert runner.said == [("population", 2, 3.0)]
    assert (len(store.commits()), len(store.records()), len(seen)) == (1, 0, 1)


def test_a_display_counts_who_answered_or_failed_for_good() -> None:
    shown: list[str] = []

    class Observer:
        def round_opened(self, round: int, cohort: int) -> None:
            shown.append(f"round {round} of {cohort}")

        def clients_done(self, clients: Sequence[str]) -> None:
            shown.extend(clients)

        def committed(self, history: History) -> str:
            return ""

    runner = Scripted([(1, Lost("a", 1, failure("a"))), (2, Arrived([("a", 2)])), (3, Failed("b", 1, failure("b")))])
    drive(conduct(QUESTION, Exchange(["a", "b"], quorum=0.5), 500), runner, MemoryStore(), runner, Observer())
    assert shown == ["round 3 of 2", "a", "b"]


def test_the_loop_itself_does_nothing() -> None:
    """It says what is to be done; another driver may do it."""
    loop = conduct(QUESTION, Exchange(["a"]), 10.0)
    assert next(loop) == Open(QUESTION, 1)
    assert loop.send(50.0) == Lease((("a", 1),))
    assert loop.send(None) == Wait(60.0)
    assert loop.send([Arrived([("a", 1)]), DeadlinePassed()]) == Fold((("a", 1, 0),))
    finish = loop.send([])
    assert isinstance(finish, Finish)
    assert finish.close.folded == ("a",)
