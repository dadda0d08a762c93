"""Processes that share the work on large arrays, and die when one least wants it."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.acceptance.processes import children, until
from umbel.arrays import Array
from umbel.simulation import claims
from umbel.simulation.claims import Claims
from umbel.simulation.region import Region, origin_of
from umbel.simulation.sharing import Sharing
from umbel.spread import Elementwise

if sys.platform != "linux":
    pytest.skip("elsewhere large arrays do not lie in shared memory", allow_module_level=True)

SIZE = 700_000
MODULE = """
import os, signal
import numpy as np

def add(out, values, *, deadly=None, at=-1, after=False, unlike=-1):
    mine = deadly is not None and os.getpid() != deadly and (values == at).any()
    if mine and not after:
        os.kill(os.getpid(), signal.SIGKILL)
    np.add(out, values, out=out)
    if mine:
        os.kill(os.getpid(), signal.SIGKILL)
    return not (values == unlike).any()

def interrupted(out, values, *, main):
    if os.getpid() == main:
        raise KeyboardInterrupt
    np.add(out, values, out=out)
"""


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., object]]:
    """A function that helpers find, too."""
    (tmp_path / "helpers_additions.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    import helpers_additions  # type: ignore[import-not-found]

    yield helpers_additions.add
    del sys.modules["helpers_additions"]


class Memory:
    """Arrays in shared memory: what is summed up, and what is added."""

    def __init__(self) -> None:
        self.regions = Region(8 * SIZE), Region(16 * SIZE)
        self.out = self.regions[0].array(0, SIZE, np.float64)
        self.values = self.regions[1].array(8 * SIZE, SIZE, np.float64)
        self.values[:] = np.arange(SIZE)

    def close(self) -> None:
        for region in self.regions:
            region.close()


@pytest.fixture
def memory() -> Iterator[Memory]:
    made = Memory()
    yield made
    made.close()


def slices(step: int = 50_000) -> list[slice]:
    return [slice(begin, min(begin + step, SIZE)) for begin in range(0, SIZE, step)]


@pytest.fixture
def sharing(add: Callable[..., object]) -> Iterator[Sharing]:
    made = Sharing(3)
    yield made
    made.close()
    until(lambda: not helping(), "the end of the helpers")


def helping() -> list[int]:
    return [pid for pid in children() if b"umbel.simulation.helper" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def started(sharing: Sharing, work: Elementwise) -> None:
    """Wait until there are helpers; the work is done again and again meanwhile."""

    def ready() -> bool:
        sharing(work, slices())
        return len(sharing._ready()) == 2

    until(ready, "the helpers")


def test_each_element_is_added_once(sharing: Sharing, add: Callable[..., object], memory: Memory) -> None:
    work = Elementwise(add, memory.out, [memory.values])
    started(sharing, work)
    memory.out[:] = 1
    for round in range(1, 20):
        assert sharing(work, slices())
        np.testing.assert_array_equal(memory.out, 1 + round * memory.values)
    assert not sharing(Elementwise(add, memory.out, [memory.values], {"unlike": SIZE - 1}), slices())
    assert not sharing(Elementwise(add, memory.out, [memory.values], {"unlike": 7}), slices())


def test_memory_of_its_own_is_for_threads(sharing: Sharing, add: Callable[..., object], memory: Memory) -> None:
    started(sharing, Elementwise(add, memory.out, [memory.values]))
    mine = np.zeros(SIZE)
    for out, values in [(mine, memory.values), (memory.out, np.ones(SIZE))]:
        before = out.copy()
        assert sharing(Elementwise(add, out, [values]), slices())
        np.testing.assert_array_equal(out, before + values)
    assert len(helping()) == 2


def test_a_region_that_is_closed_or_grown(sharing: Sharing, add: Callable[..., object], memory: Memory) -> None:
    work = Elementwise(add, memory.out, [memory.values])
    started(sharing, work)
    region = Region(8 * SIZE)
    assert sharing(Elementwise(add, memory.out, [region.array(0, SIZE, np.float64)]), slices())
    region.resize(64 * SIZE)
    later = region.array(48 * SIZE, SIZE, np.float64)
    later[:] = 3
    memory.out[:] = 0
    assert sharing(Elementwise(add, memory.out, [later]), slices())
    np.testing.assert_array_equal(memory.out, 3)
    region.close()
    other = Region(8 * SIZE)  # its file has the number that the other's had
    again = other.array(0, SIZE, np.float64)
    again[:] = 5
    for values in (later, again):
        assert sharing(Elementwise(add, memory.out, [values]), slices())
    np.testing.assert_array_equal(memory.out, 11)
    other.close()
    assert len(helping()) == 2


@pytest.mark.parametrize("when", [(at, after) for at in (0, 33_000, 50_001, 349_999, SIZE - 1) for after in (0, 1)])
def test_one_that_dies_at_its_work_loses_nothing(
    sharing: Sharing,
    add: Callable[..., object],
    memory: Memory,
    caplog: pytest.LogCaptureFixture,
    when: tuple[int, int],
) -> None:
    started(sharing, Elementwise(add, memory.out, [memory.values]))
    memory.out[:] = 1
    deadly = {"deadly": os.getpid(), "at": when[0], "after": when[1]}
    with caplog.at_level(logging.WARNING, "umbel"):
        for _ in range(40):
            assert sharing(Elementwise(add, memory.out, [memory.values], deadly), slices())
    np.testing.assert_array_equal(memory.out, 1 + 40 * memory.values)
    assert all("helper-died" in r.getMessage() and "-9" in r.getMessage() for r in caplog.records)
    assert len(helping()) == 2 - len(caplog.records)


def test_those_that_are_killed_or_stopped_hold_nobody_up(
    sharing: Sharing, add: Callable[..., object], memory: Memory
) -> None:
    work = Elementwise(add, memory.out, [memory.values])
    started(sharing, work)
    stopped, killed = helping()
    os.kill(stopped, signal.SIGSTOP)
    os.kill(killed, signal.SIGKILL)
    memory.out[:] = 0
    for _ in range(30):
        assert sharing(work, slices())
    os.kill(stopped, signal.SIGCONT)
    until(lambda: len(sharing._ready()) == 1, "the one that was stopped")
    assert sharing(work, slices())
    np.testing.assert_array_equal(memory.out, 31 * memory.values)


def test_nobody_writes_to_the_arrays_after_an_interrupt(
    sharing: Sharing, add: Callable[..., object], memory: Memory
) -> None:
    started(sharing, Elementwise(add, memory.out, [memory.values]))
    interrupted = sys.modules["helpers_additions"].interrupted
    work = Elementwise(interrupted, memory.out, [memory.values], {"main": os.getpid()})

    def again_and_again() -> None:
        for _ in range(1000):  # all parts may be done before it takes one itself
            sharing(work, slices())

    with pytest.raises(KeyboardInterrupt):
        again_and_again()
    assert not helping()
    memory.out[:] = 0
    assert sharing(Elementwise(add, memory.out, [memory.values]), slices())
    np.testing.assert_array_equal(memory.out, memory.values)


def test_a_fork_has_no_helpers(sharing: Sharing, add: Callable[..., object], memory: Memory) -> None:
    work = Elementwise(add, memory.out, [memory.values])
    started(sharing, work)
    pid = os.fork()
    if not pid:
        sharing.close()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert len(helping()) == 2
    assert sharing(work, slices())


class Death(BaseException):
    """In the place of one that no program hears of."""


@settings(max_examples=60)
@given(block=st.integers(0, 5), written=st.floats(0, 1), size=st.integers(1, 5000), dtype=st.sampled_from(["f4", "f8"]))
def test_what_one_leaves_is_done_from_where_it_ended(block: int, written: float, size: int, dtype: str) -> None:
    count = [0]

    def add(out: Array, values: Array) -> bool:
        if count[0] == block:
            count[0] += 1
            some = int(len(out) * written)
            out[:some] += values[:some]
            raise Death
        count[0] += 1
        out += values
        return True

    made = Claims(2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claims, "BLOCK", 1000)
        values = np.arange(size, dtype=dtype)
        work = Elementwise(add, np.ones(size, dtype), [values])
        parts = [slice(0, size)]
        number = made.publish(1)
        part = made.take(number, 1)
        assert part == 0
        assert made.take(number) is None
        assert made.doing(1, []) == 0
        try:
            made.do(1, work, parts[part])
        except Death:
            assert made.doing(1, []) == 0
        else:
            assert made.doing(1, []) is None
        assert made.take_over(1, work, parts, [])
        assert made.doing(1, []) is None
    np.testing.assert_array_equal(work.out, values + 1)
    made.close()


def test_a_part_of_a_work_that_is_over_is_not_taken() -> None:
    made = Claims(1)
    first = made.publish(3)
    assert [made.take(first), made.take(first, 0)] == [0, 1]
    second = made.publish(1)
    assert made.take(first, 0) is None
    assert [made.take(second, 0), made.take(second, 0)] == [0, None]
    made.close()


def test_where_an_array_lies() -> None:
    region = Region(10_000)
    array = region.array(400, 100, np.float32)
    found = origin_of(array[10:20])
    assert found is not None
    assert found[0].handle == region.handle
    assert found[1] == 440
    assert origin_of(np.frombuffer(array.data[3:], np.float32)) == (found[0], 412)
    piece, _ = region.lend(800, 64, writable=False)
    assert origin_of(piece[4:]) == (found[0], 804)
    assert origin_of(np.zeros(3)) is None
    assert origin_of(np.frombuffer(b"12345678", np.float32)) is None
    region.close()
    assert not found[0].is_open


def test_the_number_of_parts_does_not_matter(sharing: Sharing, add: Callable[..., object], memory: Memory) -> None:
    work = Elementwise(add, memory.out, [memory.values])
    started(sharing, work)
    memory.out[:] = 0
    steps: Sequence[int] = (SIZE, 1_000, 123_457)
    for step in steps:
        assert sharing(work, slices(step))
    np.testing.assert_array_equal(memory.out, 3 * memory.values)
