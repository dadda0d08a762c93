"""Nothing is written over what a worker still looks at, in whatever order messages are read."""

from __future__ import annotations

from collections import deque
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from umbel.simulation.messages import Rest
from umbel.simulation.rests import Rests

WORKERS = 2


class Worker:
    """Reads its messages in turn, and says that it rests when it has read one and done what there was."""

    def __init__(self) -> None:
        self.inbox: deque[int | str] = deque()  # an exchange that begins, "more", or "end"
        self.said: deque[tuple[int, Rest]] = deque()
        self.exchange = self.heard = 0

    @property
    def rests(self) -> bool:
        return not any(message != "end" for message in self.inbox)

    def read(self) -> None:
        if not self.inbox:
            return
        message = self.inbox.popleft()
        if isinstance(message, int):
            self.exchange, self.heard = message, 0
        elif message == "more":
            self.heard += 1
        self.said.append((self.exchange, Rest(self.heard, [(self.exchange, self.heard)])))


@given(st.lists(st.tuples(st.sampled_from(["more", "next", "hear", "read"]), st.integers(0, WORKERS - 1))))
def test_who_is_not_awaited_rests(steps: list[tuple[str, int]]) -> None:
    rests, workers, exchange = Rests(), [Worker() for _ in range(WORKERS)], 0

    def tell(message: Any) -> None:
        for worker in workers:
            worker.inbox.append(message)

    def hear(number: int) -> None:
        if workers[number].said:
            rests.note(number, *workers[number].said.popleft())

    def begin() -> None:
        nonlocal exchange
        exchange += 1
        rests.begin(exchange)
        tell(exchange)

    def end() -> None:
        for late in rests.end(range(WORKERS), [(-exchange, 0)]):
            workers[late].inbox.append("end")
        while rests.pending:  # comes to an end
            for number, worker in enumerate(workers):
                worker.read()
                hear(number)
        for worker in workers:
            assert worker.rests
            assert (worker.exchange, worker.heard) in rests.held  # what it looked at last

    begin()
    for step, number in steps:
        if step == "more":
            rests.more()
            tell("more")
        elif step == "next":
            end()
            begin()
        elif step == "read":
            workers[number].read()
        else:
            hear(number)
        for i, worker in enumerate(workers):
            assert worker.rests or not rests.is_resting(i), "who is yet to read something will have something to say"
    end()


def test_who_is_gone_is_not_awaited() -> None:
    rests = Rests()
    rests.begin(1)
    assert rests.end([0, 1], [(0, 64)]) == [0, 1]
    rests.note(0, 1, Rest(0, []))
    assert rests.pending
    assert rests.held == [(0, 64)]
    rests.forget(1)
    assert not rests.pending
    assert rests.held == []
