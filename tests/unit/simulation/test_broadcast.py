"""Nothing is written over what anyone looks at, and what is there already is not copied."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel import Arrays
from umbel.simulation import broadcast as module
from umbel.simulation.broadcast import Broadcast
from umbel.simulation.messages import Rest
from umbel.simulation.recycler import LARGE
from umbel.simulation.region import Region
from umbel.simulation.rests import Rests

SPECS = [Arrays({"w": np.zeros(size, "f4")}).spec for size in (LARGE // 4, LARGE // 2)]
needs_memory = pytest.mark.skipif(not module._IS_MEMORY, reason="needs shared memory that is no file")


class Federation:
    """One worker, the main process, and what each of them looks at: a number that all elements have."""

    def __init__(self) -> None:
        self.rests = Rests()
        self.broadcast = Broadcast(self.rests)
        self.made: list[tuple[Arrays, int]] = []
        self.sent: list[tuple[int, Any, int]] = []  # where, and what lies there
        self.looked_at: list[tuple[int, Any, int]] = []  # by a worker that has not let go of the exchange that ended
        self.exchange = self.number = 0
        self.begin()

    def begin(self) -> None:
        if self.rests.pending:
            return
        self.exchange += 1
        self.rests.begin(self.exchange)

    def make(self, which: int) -> None:
        spec, self.number = SPECS[which % len(SPECS)], self.number + 1
        made = Arrays.blank(spec, self.broadcast.lend(spec.size))
        made.raw("w")[:] = self.number
        self.made.append((made.freeze(), self.number))

    def drop(self, which: int) -> None:
        if self.made:
            del self.made[which % len(self.made)]

    def send(self, which: int) -> None:
        if self.made and not self.rests.pending:
            arrays, number = self.made[which % len(self.made)]
            self.sent.append((self.broadcast.put(arrays), arrays.spec, number))

    def send_a_copy(self, which: int) -> None:
        if not self.rests.pending:
            spec, self.number = SPECS[which % len(SPECS)], self.number + 1
            arrays = Arrays({"w": np.full(spec.entries[0].shape, self.number, "f4")})
            self.sent.append((self.broadcast.put(arrays), arrays.spec, self.number))

    def end(self, which: int) -> None:
        if not self.rests.pending:
            if which % 2:
                self.rests.note(0, self.exchange, Rest(0, []))
            if self.rests.end([0], self.broadcast.sent):
                self.looked_at = self.sent
            self.broadcast.end()
            self.sent = []
            self.begin()

    def rest(self, _: int) -> None:
        if self.rests.pending:
            self.rests.note(0, self.exchange, Rest(0, []))
            self.looked_at = []
            self.begin()

    def pin(self, _: int) -> None:
        self.broadcast.pin()

    def trim(self, _: int) -> None:
        self.broadcast.trim()

    def check(self) -> None:
        for arrays, number in self.made:
            assert set(arrays["w"].tolist()) == {number}
        there = Region(self.broadcast.size, self.broadcast.handle, writable=False)
        for offset, spec, number in self.sent + self.looked_at:
            assert set(Arrays.over(spec, there.piece(offset, spec.size))["w"].tolist()) == {number}


STEPS = ["make", "make", "drop", "send", "send_a_copy", "end", "rest", "pin", "trim"]


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 9)), max_size=30))
def test_what_anyone_looks_at_stays_as_it_is(steps: list[tuple[str, int]]) -> None:
    federation = Federation()
    try:
        for name, which in steps:
            getattr(federation, name)(which)
        federation.check()
    finally:
        federation.broadcast.close()


def made(broadcast: Broadcast, value: float = 1.0) -> Arrays:
    arrays = Arrays.blank(SPECS[0], broadcast.lend(SPECS[0].size))
    arrays.raw("w")[:] = value
    return arrays.freeze()


@needs_memory
def test_what_was_made_there_is_sent_without_a_copy() -> None:
    broadcast = Broadcast(Rests())
    model = made(broadcast)
    before = allocated(broadcast)
    assert broadcast.put(model) == broadcast.put(model)
    assert allocated(broadcast) == before
    broadcast.close()


def allocated(broadcast: Broadcast) -> int:
    """Bytes of memory that it takes."""
    assert isinstance(broadcast.handle, int)
    return os.fstat(broadcast.handle).st_blocks * 512


@needs_memory
def test_rounds_take_the_same_memory_again() -> None:
    broadcast, model = Broadcast(Rests()), None
    sizes = []
    for _ in range(10):
        total = made(broadcast)
        new = made(broadcast)
        del total
        model = new
        broadcast.put(model)
        broadcast.end()
        sizes.append(allocated(broadcast))
    assert len(set(sizes[2:])) == 1
    assert sizes[-1] <= 3 * SPECS[0].size + 4 * 4096
    broadcast.close()


@needs_memory
def test_memory_that_nobody_looks_at_is_given_back() -> None:
    broadcast = Broadcast(Rests())
    first, kept, last = (made(broadcast, i) for i in range(3))
    del first, last
    broadcast.trim()
    assert allocated(broadcast) <= SPECS[0].size + 2 * 4096
    assert set(kept["w"].tolist()) == {1.0}
    broadcast.forget()
    assert set(kept["w"].tolist()) == {1.0}, "as a result is kept beyond the workers"
    broadcast.close()
    assert set(kept["w"].tolist()) == {1.0}


def test_what_is_still_written_is_sent_as_it_was() -> None:
    broadcast = Broadcast(Rests())
    open_ = Arrays.blank(SPECS[0], broadcast.lend(SPECS[0].size))
    open_.raw("w")[:] = 1
    there = broadcast.put(open_)
    open_.raw("w")[:] = 2
    seen = Region(broadcast.size, broadcast.handle, writable=False).piece(there, SPECS[0].size)
    assert set(Arrays.over(SPECS[0], seen)["w"].tolist()) == {1.0}
    broadcast.close()


def test_little_arrays_lie_anywhere() -> None:
    broadcast = Broadcast(Rests())
    assert broadcast.lend(LARGE - 1) is None
    broadcast.close()


@needs_memory
def test_where_there_is_no_memory_arrays_lie_anywhere() -> None:
    broadcast = Broadcast(Rests())
    assert broadcast.lend(1 << 60) is None
    broadcast.close()
