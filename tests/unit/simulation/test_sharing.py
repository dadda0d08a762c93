"""Processes that share the work on large arrays, and die when one least wants it."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.acceptance.processes import children, until
from umbel.arrays import Array
from umbel.simulation import claims, helper
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

def touched(out, *values):
    out += 1

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
        del self.out, self.values
        for region in self.regions:
            region.close()
            region.forget()


@pytest.fixture
def memory() -> Iterator[Memory]:
    made = Memory()
    yield made
    made.close()


def slices(step: int = 50_000) -> list[slice]:
    return [slice(begin, min(begin + step, SIZE)) for begin in range(0, SIZE, step)]


@pytest.fixture
def sharing(add: Callable[..., object]) -> Iterator[Sharing]:
    before = offspring(), files()
    made = Sharing(3)
    yield made
    made.close()
    assert_nothing_is_left_since(before)


def offspring() -> set[int]:
    """All processes that this one has started and not waited for."""
    found = set()
    for place in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if place.name.isdigit() and (place / "stat").read_text().rpartition(") ")[2].split()[1] == str(os.getpid()):
                found.add(int(place.name))
    return found


def files() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def assert_nothing_is_left_since(before: tuple[set[int], int]) -> None:
    """Less may be open than before: what an earlier test left may be closed meanwhile, by a thread or the collector."""
    assert offspring() == before[0]
    assert files() <= before[1]


def helping() -> list[int]:
    return [pid for pid in children() if b"umbel.simulation.helper" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@contextlib.contextmanager
def forked() -> Iterator[None]:
    """A fork of this process that lives on."""
    hears, says = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(says)
        os.read(hears, 1)
        os._exit(0)
    os.close(hears)
    try:
        yield
    finally:
        os.close(says)
        os.waitpid(pid, 0)


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


def test_a_fork_that_lives_on_does_not_hide_a_death(
    sharing: Sharing, add: Callable[..., object], memory: Memory
) -> None:
    started(sharing, Elementwise(add, memory.out, [memory.values]))
    memory.out[:] = 0
    with forked():
        for _ in range(40):
            assert sharing(Elementwise(add, memory.out, [memory.values], {"deadly": os.getpid(), "at": 0}), slices())
    np.testing.assert_array_equal(memory.out, 40 * memory.values)


def test_forks_of_other_threads_hold_nothing(add: Callable[..., object], memory: Memory) -> None:
    ended, forks = threading.Event(), list[int]()
    (hears, says), (begins, began) = os.pipe(), os.pipe()

    def fork_on() -> None:
        while not ended.is_set() and len(forks) < 50:
            forks.append(os.fork())
            if not forks[-1]:
                os.close(says)
                os.write(began, b".")
                os.read(hears, 1)
                os._exit(0)

    thread = threading.Thread(target=fork_on)
    thread.start()
    made = [Sharing(3) for _ in range(4)]
    try:
        for one in made:
            one(Elementwise(add, memory.out, [memory.values]), slices())
        ended.set()
        thread.join()
        for _ in forks:  # each has let go of what is not its own
            os.read(begins, 1)
        mine = {os.readlink(f"/proc/self/fd/{h._socket.fileno()}") for one in made for h in one._helpers}
        held = {os.readlink(file) for pid in forks for file in Path(f"/proc/{pid}/fd").iterdir() if file.is_symlink()}
    finally:
        ended.set()
        thread.join()
        for file in (says, hears, begins, began):
            os.close(file)
        for pid in forks:
            os.waitpid(pid, 0)
        for one in made:
            one.close()
    assert len(mine) == 8
    assert not mine & held


def test_one_that_is_stopped_is_not_sent_more_than_it_can_hold(
    sharing: Sharing, add: Callable[..., object], memory: Memory
) -> None:
    started(sharing, Elementwise(add, memory.out, [memory.values]))
    first = helping()
    for pid in first:
        os.kill(pid, signal.SIGSTOP)
    region = memory.regions[1]
    many = [region.array(64 * i, SIZE, np.float64) for i in range(400)]
    for _ in range(30):
        sharing(Elementwise(sys.modules["helpers_additions"].touched, memory.out, many), slices(SIZE))
    for pid in first:
        os.kill(pid, signal.SIGCONT)
    until(lambda: len(sharing._ready()) == 2, "the ones that were stopped")


def test_denormals_are_flushed_everywhere_or_nowhere(
    sharing: Sharing, add: Callable[..., object], memory: Memory
) -> None:
    torch = pytest.importorskip("torch")
    started(sharing, Elementwise(add, memory.out, [memory.values]))
    memory.values[:] = 1e-310
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor does not flush denormals")
    try:
        memory.out[:] = 0
        sharing(Elementwise(add, memory.out, [memory.values]), slices())
    finally:
        torch.set_flush_denormal(False)
    assert len(np.unique(memory.out.view(np.int64))) == 1


def test_places_that_are_no_text_or_relative(
    add: Callable[..., object], memory: Memory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "secrets.py").write_text("raise RuntimeError('that of another directory')")
    monkeypatch.setattr(sys, "path", ["", Path("/nowhere"), *sys.path])
    made = Sharing(3)
    monkeypatch.chdir(tmp_path)
    started(made, Elementwise(add, memory.out, [memory.values]))
    made.close()


def test_memory_of_regions_that_are_closed_is_given_back(
    sharing: Sharing, add: Callable[..., object], memory: Memory
) -> None:
    region = Region(8 * SIZE)
    work = Elementwise(add, memory.out, [region.array(0, SIZE, np.float64)])
    started(sharing, work)
    sharing(work, slices())
    pids = helping()

    def seen() -> set[str]:
        lines = [line for pid in pids for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
        return {line.split()[4] for line in lines if "umbel-region" in line}

    inode = str(os.stat(region.handle).st_ino)
    until(lambda: inode in seen(), "the region")
    region.close()
    until(lambda: len(sharing._ready()) == 2, "the helpers")
    sharing.forget_closed()
    until(lambda: inode not in seen(), "the end of the region")


def test_an_interrupted_start_leaves_nothing(
    add: Callable[..., object], memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(process: object) -> None:
        raise KeyboardInterrupt

    before, made = (offspring(), files()), Sharing(3)
    monkeypatch.setattr(helper, "end_of", interrupt)
    with pytest.raises(KeyboardInterrupt):
        made(Elementwise(add, memory.out, [memory.values]), slices())
    made.close()
    assert_nothing_is_left_since(before)


def test_without_files_it_goes_with_threads(
    sharing: Sharing, add: Callable[..., object], memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(helper, "start", none_left)
    memory.out[:] = 0
    assert sharing(Elementwise(add, memory.out, [memory.values]), slices())
    assert sharing(Elementwise(add, memory.out, [memory.values]), slices())
    np.testing.assert_array_equal(memory.out, 2 * memory.values)


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
        assert made.does(1)
        try:
            made.do(1, work, parts[part])
        except Death:
            assert made.does(1)
        else:
            assert not made.does(1)
        assert made.take_over(1, work, parts)
        assert not made.does(1)
    np.testing.assert_array_equal(work.out, values + 1)
    made.close()


@pytest.mark.parametrize("taker", [0, 2, None])
def test_one_that_dies_while_it_takes_a_part_leaves_it_to_another(taker: int | None) -> None:
    made = Claims(3)
    number = made.publish(1)
    made._part[1] = 0  # what it noted before it was killed
    assert made.take(number, taker) == 0
    assert not made.does(1)
    assert made.take_over(1, Elementwise(np.copyto, np.ones(5), options={"src": 2}), [slice(0, 5)])
    assert made.take(number) is None
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
