"""Work on large arrays, shared out among threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from umbel import Arrays, Update, aggregate, optimize, spread
from umbel.aggregate.weighted_sum import WeightedSum
from umbel.arrays import Array
from umbel.rows import Rows
from umbel.simulation.threads import Threads, large_arrays
from umbel.spread import Elementwise, Work, in_parts, one_by_one, spreading

SIZE = 5003


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "PART", 1000)
    monkeypatch.setattr(spread, "LARGE", 1000)


@pytest.fixture
def threads() -> Iterator[Threads]:
    made = Threads(2)
    yield made
    made.close()


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, SIZE])
def test_each_element_has_its_turn_once(size: int, threads: Threads) -> None:
    seen = np.zeros(size, int)

    def see(s: slice) -> bool:
        seen[s] += 1
        return True

    assert in_parts(size, see)
    with spreading(threads):
        assert in_parts(size, see)
    assert seen.tolist() == [2] * size


def test_a_process_that_does_nothing_else_shares_out_and_leaves_no_thread() -> None:
    who: set[str] = set()

    def see(_: slice) -> bool:
        who.add(threading.current_thread().name)
        return True

    with large_arrays(2):
        assert in_parts(SIZE, see)
    assert who
    assert all(name.startswith("umbel-fold") for name in who)
    assert not any(thread.name in who for thread in threading.enumerate())
    assert in_parts(SIZE, see)
    assert threading.current_thread().name in who


def test_who_comes_when_the_threads_have_ended_does_it_alone() -> None:
    """At a server: an answer is looked at while the last run ends."""
    who: list[str] = []

    def see(_: slice) -> bool:
        who.append(threading.current_thread().name)
        return len(who) != 2

    threads = Threads(2)
    threads.close()
    with spreading(threads):
        assert not in_parts(SIZE, see)
    assert {*who} == {threading.current_thread().name}


def test_it_says_whether_all_said_so() -> None:
    assert not in_parts(SIZE, lambda s: s.start != 2000)
    assert not in_parts(SIZE, lambda s: None)  # noqa: ARG005
    assert not in_parts(1, lambda s: None)  # noqa: ARG005


def test_it_is_shared_out_inside_the_context_only() -> None:
    shared: list[list[slice]] = []

    def note(work: Work, parts: Sequence[slice]) -> bool:
        shared.append([*parts])
        return one_by_one(work, parts)

    with spreading(note):
        in_parts(2500, lambda s: None)  # noqa: ARG005
    in_parts(2500, lambda s: None)  # noqa: ARG005
    assert shared == [[slice(0, 1000), slice(1000, 2000), slice(2000, 2500)]]


def test_what_another_process_understands_is_done_alike() -> None:
    out, values = np.zeros(SIZE), np.arange(SIZE) / 7
    in_parts(SIZE, Elementwise(np.copyto, out, [values], {"where": True}))
    np.testing.assert_array_equal(out, values)


def test_errors_come_through_and_numpy_gives_no_warning(threads: Threads) -> None:
    def divide(s: slice) -> None:
        assert np.isinf(np.ones(s.stop - s.start) / 0).all()
        if s.start == 3000:
            raise ValueError("3000")

    with spreading(threads), pytest.raises(ValueError, match="3000"):
        in_parts(SIZE, divide)


def round_of(dtype: str) -> list[Array]:
    """A sum, its mean and the server's step."""
    rng = np.random.default_rng(7)

    def drawn() -> Arrays:
        return Arrays({"w": rng.normal(size=SIZE).astype(dtype), "b": rng.normal(size=3).astype(dtype)})

    sent = drawn()
    total, other = WeightedSum.empty(sent), WeightedSum.empty(sent)
    total.add_rows(Rows.over([Update(model=drawn()) for _ in range(3)]), sent, [1.0, 0.3, 2.0])
    other.add(Update(model=drawn()), sent, 1.5)
    total.merge(other)
    mean = aggregate.mean().finish(total)
    assert mean is not None
    optimizer = optimize.adam()
    model, state = optimizer.step(sent, mean, optimizer.init(sent))
    return [np.frombuffer(arrays.to_bytes(), np.uint8) for arrays in (mean, model, state.rule.m, state.rule.v)]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_threads_make_the_same_bits(dtype: str, threads: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    with spreading(threads):
        shared = round_of(dtype)
    monkeypatch.setattr(spread, "LARGE", SIZE)
    for mine, alone in zip(shared, round_of(dtype), strict=True):
        np.testing.assert_array_equal(mine, alone)
