"""What holds for every schedule and every config."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from umbel import schedule
from umbel.codec import decode, encode
from umbel.schedule import Schedule

finite = st.floats(-1e6, 1e6)
many = st.integers(1, 200)
powers = st.floats(0.1, 8)

# Those that go from a start to an end over some rounds.
ways: st.SearchStrategy[tuple[Schedule, float, float, int]] = st.one_of(
    st.builds(lambda a, b, n: (schedule.linear(a, b, rounds=n), a, b, n), finite, finite, many),
    st.builds(lambda a, b, n: (schedule.cosine(a, end=b, rounds=n), a, b, n), finite, finite, many),
    st.builds(
        lambda a, b, n, p: (schedule.polynomial(a, end=b, rounds=n, power=p), a, b, n), finite, finite, many, powers
    ),
)
any_schedule: st.SearchStrategy[Schedule] = st.recursive(
    st.one_of(
        ways.map(lambda way: way[0]),
        st.builds(schedule.constant, finite | st.integers(-5, 5)),
        st.builds(lambda a, d, n: schedule.exponential(a, decay=d, every=n), finite, st.floats(0.01, 1), many),
        st.builds(lambda a, f, n: schedule.step(a, factor=f, every=n), finite, st.floats(0.01, 2), many),
        st.builds(schedule.piecewise, finite, st.dictionaries(st.integers(2, 99), finite, max_size=4)),
    ),
    lambda inner: st.builds(lambda n, then: schedule.warmup(n, then=then), many, inner),
    max_leaves=3,
)


@given(ways)
def test_a_way_begins_at_its_start_and_stays_at_its_end(way: tuple[Schedule, float, float, int]) -> None:
    line, start, end, rounds = way
    assert line.at(1) == start
    assert [line.at(r) for r in (rounds + 1, rounds + 2, rounds + 1000)] == [end] * 3


@given(ways)
def test_a_way_never_turns_and_never_leaves_its_bounds(way: tuple[Schedule, float, float, int]) -> None:
    line, start, end, rounds = way
    values = np.array([line.at(r) for r in range(1, rounds + 3)])
    slack = 1e-12 * max(abs(start), abs(end)) + 1e-300
    assert values.min() >= min(start, end) - slack
    assert values.max() <= max(start, end) + slack
    assert (np.diff(values) * np.sign(end - start) >= -slack).all()


@given(finite, finite, many)
def test_linear_is_the_polynomial_of_power_one(start: float, end: float, rounds: int) -> None:
    line, curve = (
        schedule.linear(start, end, rounds=rounds),
        schedule.polynomial(start, end=end, rounds=rounds, power=1),
    )
    assert line == curve


@given(st.floats(0.1, 10), st.floats(0.5, 1), st.integers(1, 9), st.integers(1, 100))
def test_steps_and_exponential_meet_where_a_stair_begins(start: float, factor: float, every: int, stair: int) -> None:
    stairs, slope = (
        schedule.step(start, factor=factor, every=every),
        schedule.exponential(start, decay=factor, every=every),
    )
    begin = 1 + stair * every
    assert stairs.at(begin) == pytest.approx(slope.at(begin), rel=1e-12)
    assert {stairs.at(r) for r in range(begin, begin + every)} == {stairs.at(begin)}


@given(finite, st.dictionaries(st.integers(2, 60), finite, max_size=6))
def test_piecewise_gives_the_last_change(start: float, changes: dict[int, float]) -> None:
    pieces = schedule.piecewise(start, changes)
    value = start
    for r in range(1, 70):
        value = changes.get(r, value)
        assert pieces.at(r) == value


@given(st.integers(1, 50), any_schedule)
def test_warmup_rises_evenly_to_what_follows(rounds: int, then: Schedule) -> None:
    line, top = schedule.warmup(rounds, then=then), then.at(1)
    assert [line.at(r) for r in range(1, rounds + 1)] == pytest.approx(
        [top * r / (rounds + 1) for r in range(1, rounds + 1)]
    )
    assert [line.at(rounds + r) for r in range(1, 9)] == [then.at(r) for r in range(1, 9)]


@given(any_schedule, st.integers(1, 500))
def test_a_schedule_travels(given_: Schedule, round: int) -> None:
    there = decode(encode(given_, lambda _: ""), lambda _: None)  # type: ignore[arg-type, return-value]  # no arrays
    assert there == given_
    assert there.at(round) == given_.at(round)
    assert hash(there) == hash(given_)


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
plain: st.SearchStrategy[Any] = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8
)
rich: st.SearchStrategy[Any] = st.recursive(
    scalars | any_schedule | st.integers(-9, 9).map(np.int32) | st.booleans().map(np.bool_) | finite.map(np.float64),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), plain), st.integers(1, 99))
def test_what_is_plain_passes_unchanged(config: dict[str, Any], round: int) -> None:
    assert schedule.resolve(config, round) == config


@given(st.dictionaries(st.text(), rich), st.integers(1, 99))
def test_what_is_resolved_is_plain(config: dict[str, Any], round: int) -> None:
    once = schedule.resolve(config, round)
    assume(once == once)  # noqa: PLR0124  # no NaN
    assert_plain(once)
    assert schedule.resolve(once, round + 1) == once


def assert_plain(value: Any) -> None:
    assert type(value) in (type(None), bool, int, float, str, bytes, list, dict)
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        assert_plain(part)
