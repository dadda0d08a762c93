"""Schedules, and the config that holds them."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pytest

from umbel import schedule
from umbel.arguments import number, whole
from umbel.errors import UsageError
from umbel.schedule import Schedule, resolve


def values(line: Schedule, rounds: int) -> list[float]:
    return [line.at(r) for r in range(1, rounds + 1)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (schedule.constant(3), [3, 3, 3]),
        (schedule.linear(1.0, 0.0, rounds=4), [1, 0.75, 0.5, 0.25, 0, 0]),
        (schedule.linear(0.0, 1.0, rounds=1), [0, 1, 1]),
        (schedule.polynomial(8.0, rounds=2, power=2), [8, 2, 0, 0]),
        (schedule.cosine(1.0, rounds=4), [1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2, 0, 0]),
        (schedule.cosine(3.0, rounds=2, end=1.0), [3, 2, 1, 1]),
        (schedule.exponential(1.0, decay=0.25, every=2), [1, 0.5, 0.25, 0.125]),
        (schedule.step(1.0, factor=0.5, every=2), [1, 1, 0.5, 0.5, 0.25]),
        (schedule.piecewise(1.0, {3: 0.1, 2: 0.5}), [1, 0.5, 0.1, 0.1]),
        (schedule.piecewise(1.0, {}), [1, 1]),
        (schedule.warmup(3, then=1.0), [0.25, 0.5, 0.75, 1, 1]),
        (schedule.warmup(1, then=schedule.linear(2.0, 0.0, rounds=2)), [1, 2, 1, 0, 0]),
    ],
    ids=lambda v: repr(v)[:60],
)
def test_values_by_round(line: Schedule, expected: list[float]) -> None:
    assert values(line, len(expected)) == pytest.approx(expected, abs=1e-15)


def test_no_round_of_a_run_is_spent_at_the_end() -> None:
    assert min(values(schedule.cosine(0.1, rounds=20), 20)) > 0
    assert min(values(schedule.linear(0.1, 0, rounds=20), 20)) > 0


def test_whole_numbers_stay_whole() -> None:
    """So that a schedule can count epochs."""
    assert [type(v) for v in values(schedule.piecewise(1, {2: 5, 3: 0.5}), 3)] == [int, int, float]
    four: Any = np.int64(4)
    assert repr(resolve({"epochs": schedule.constant(four)}, 1)) == "{'epochs': 4}"


def test_numbers_of_numpy_become_those_of_python() -> None:
    line = schedule.linear(np.float64(1), np.int32(0), rounds=np.int64(4))  # type: ignore[arg-type]  # it is taken all the same
    assert repr(line) == repr(schedule.linear(1.0, 0.0, rounds=4))


@pytest.mark.parametrize("round", [0, -1, 1.0, True, "1", None, math.nan])
@pytest.mark.parametrize(
    "line",
    [
        schedule.constant(1),
        schedule.linear(1, 0, rounds=3),
        schedule.cosine(1, rounds=3),
        schedule.step(1, factor=1, every=1),
        schedule.piecewise(1, {2: 2}),
        schedule.warmup(2, then=1),
    ],
    ids=lambda line: type(line).__name__,
)
def test_rounds_count_from_one(line: Schedule, round: Any) -> None:
    with pytest.raises(UsageError, match="round is"):
        line.at(round)


NO_NUMBER: list[Any] = [math.nan, math.inf, -math.inf, True, "1", None, 10**400]


@pytest.mark.parametrize("bad", NO_NUMBER)
def test_a_value_must_be_a_finite_number(bad: Any) -> None:
    for make in (
        schedule.constant,
        lambda v: schedule.linear(v, 0, rounds=3),
        lambda v: schedule.linear(0, v, rounds=3),
        lambda v: schedule.cosine(v, rounds=3),
        lambda v: schedule.cosine(1, rounds=3, end=v),
        lambda v: schedule.exponential(v, decay=0.5),
        lambda v: schedule.step(v, factor=0.5, every=1),
        lambda v: schedule.piecewise(v, {}),
        lambda v: schedule.piecewise(1, {2: v}),
        lambda v: schedule.warmup(2, then=v),
    ):
        with pytest.raises(UsageError, match=r"is .*\n  What to do: give a finite number"):
            make(bad)


@pytest.mark.parametrize("bad", [*NO_NUMBER[:-1], 0, -1, 1.5])
def test_a_count_must_be_a_whole_number(bad: Any) -> None:
    makers: list[Callable[[Any], Schedule]] = [
        lambda n: schedule.linear(1, 0, rounds=n),
        lambda n: schedule.cosine(1, rounds=n),
        lambda n: schedule.exponential(1, decay=0.5, every=n),
        lambda n: schedule.step(1, factor=0.5, every=n),
        lambda n: schedule.warmup(n, then=1),
        lambda n: schedule.piecewise(1, {n: 1}),
    ]
    for make in makers:
        with pytest.raises(UsageError, match="give a whole number >= "):
            make(bad)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: schedule.exponential(1, decay=1.5), r"decay is 1.5\n.*a finite number > 0 and <= 1"),
        (lambda: schedule.exponential(1, decay=0), "decay is 0"),
        (lambda: schedule.step(1, factor=-0.5, every=1), "factor is -0.5"),
        (lambda: schedule.polynomial(1, rounds=3, power=0), "power is 0"),
        (lambda: schedule.piecewise(1, {1: 2}), "a round is 1\n.*>= 2"),
        (lambda: schedule.piecewise(1, [(2, 3)]), "changes is a list"),  # type: ignore[arg-type]  # the point
        (lambda: schedule.Piecewise(1, ((2, 3), (2, 4))), "a round stands twice"),
        (lambda: schedule.Geometric(1, 0.5, 1, stairs=1), "stairs is 1"),  # type: ignore[arg-type]  # the point
    ],
)
def test_arguments_that_make_no_sense(make: Any, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        make()


def test_bounds_are_named() -> None:
    with pytest.raises(UsageError) as caught:
        number(2, "x", above=0, most=1)
    assert str(caught.value) == "x is 2\n  What to do: give a finite number > 0 and <= 1"
    with pytest.raises(UsageError) as caught:
        whole(2.0, "n")
    assert str(caught.value) == "n is 2.0\n  What to do: give a whole number >= 1"


def test_a_schedule_that_grows_for_ever() -> None:
    line = schedule.step(1.0, factor=1e10, every=1)
    assert line.at(100) == math.inf
    assert schedule.step(0.0, factor=1e10, every=1).at(100) == 0
    with pytest.raises(UsageError, match=r"config\['lr'\]: its schedule gives inf in round 100"):
        resolve({"lr": line}, 100)


class TestResolve:
    def test_schedules_are_found_wherever_they_stand(self) -> None:
        lr = schedule.linear(1.0, 0.0, rounds=4)
        config = {"lr": lr, "layers": [{"lr": lr}, (lr, 2)], "deep": {"er": {"lr": lr}}, "name": "x"}
        assert resolve(config, 3) == {
            "lr": 0.5,
            "layers": [{"lr": 0.5}, [0.5, 2]],
            "deep": {"er": {"lr": 0.5}},
            "name": "x",
        }

    def test_numpy_numbers_and_enumerations_become_plain(self) -> None:
        class Mode(str, enum.Enum):  # noqa: UP042  # the old kind, whose str() is its name
            FAST = "fast"

        class Level(enum.IntEnum):
            HIGH = 3

        given = {"a": np.float32(0.5), "b": np.bool_(True), "c": np.str_("x"), "d": Mode.FAST, "e": Level.HIGH}
        got = resolve(given, 1)
        assert got == {"a": 0.5, "b": True, "c": "x", "d": "fast", "e": 3}
        assert [type(v) for v in got.values()] == [float, bool, str, str, int]

    def test_arrays_are_read_only_copies(self) -> None:
        bins = np.linspace(0, 1, 5)
        got: Any = resolve({"bins": bins, "swapped": bins.astype(">f4"), "columns": np.eye(2, order="F")}, 1)
        bins[0] = 9
        assert got["bins"].tolist() == [0, 0.25, 0.5, 0.75, 1]
        assert not got["bins"].flags.writeable
        assert got["swapped"].dtype == np.dtype("=f4")
        assert got["columns"].flags.c_contiguous

    @pytest.mark.parametrize(
        ("config", "text"),
        [
            ({"f": print}, r"config\['f'\] is a builtin_function_or_method, which cannot be sent"),
            ({"a": {"b": [0, {1, 2}]}}, r"config\['a'\]\['b'\]\[1\] is a set"),
            ({"z": 1j}, r"config\['z'\] is a complex"),
            ({"when": np.datetime64("2020-01-01T00", "ns")}, r"config\['when'\] is a datetime64"),
            ({"a": {2: 3}}, r"config\['a'\] has the key 2\n.*keys are text"),
            ({"o": np.array([None])}, r"config\['o'\] is an array of object"),
            ({"s": np.array(["x"])}, r"config\['s'\] is an array of <U1"),
            ({"m": np.ma.array([1.0, 2.0], mask=[False, True])}, r"config\['m'\] is an array with a mask"),
            ([("lr", 0.1)], "config is a list"),
        ],
        ids=str,
    )
    def test_what_cannot_be_sent_is_named(self, config: Any, text: str) -> None:
        with pytest.raises(UsageError, match=text):
            resolve(config, 1)

    def test_config_that_contains_itself(self) -> None:
        loop: list[Any] = []
        loop.append(loop)
        knot: dict[str, Any] = {}
        knot["k"] = knot
        for config in ({"a": loop}, knot):
            with pytest.raises(UsageError, match="is nested more than 32 deep"):
                resolve(config, 1)

    def test_a_schedule_of_ones_own_must_give_numbers(self) -> None:
        @final
        @dataclass(frozen=True)
        class Odd(Schedule):
            def at(self, round: int) -> float:
                return [0.5, math.nan][round - 1]

        assert resolve({"lr": Odd()}, 1) == {"lr": 0.5}
        with pytest.raises(UsageError, match=r"config\['lr'\]: its schedule gives nan in round 2"):
            resolve({"lr": Odd()}, 2)

    def test_rounds_count_from_one(self) -> None:
        with pytest.raises(UsageError, match="round is 0"):
            resolve({}, 0)
