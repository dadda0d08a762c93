"""Each sampler's arguments, and what only it does."""

from __future__ import annotations

import math
from typing import Any

import pytest

from umbel import sample
from umbel.errors import EmptyPopulation, UsageError
from umbel.rng import stream
from umbel.sample import Population, Sampler

TEN = Population(tuple("abcdefghij"))


def drawn(sampler: Sampler, population: Population = TEN, round: int = 1) -> str:
    return "".join(sampler.draw(population, round=round, rng=stream(0)))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -0.1, 0, True, 1.01, "0.5", None])
@pytest.mark.parametrize("make", [sample.fraction, sample.poisson])
def test_a_share_is_in_range(make: Any, bad: Any) -> None:
    with pytest.raises(UsageError, match=r"is .*\n.*a finite number > 0 and <= 1"):
        make(bad)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1, 0, True, 1.0, "3", None])
@pytest.mark.parametrize("make", [sample.count, sample.cyclic, lambda n: sample.weighted(n, label="patients")])
def test_a_count_is_a_whole_number(make: Any, bad: Any) -> None:
    with pytest.raises(UsageError, match=r"the number of clients is .*\n.*a whole number >= 1"):
        make(bad)


def test_the_smallest_cohort() -> None:
    assert len(drawn(sample.fraction(0.001))) == 1
    assert len(drawn(sample.fraction(0.001, min=3))) == 3
    assert len(drawn(sample.fraction(0.001, min=30))) == 10
    assert drawn(sample.fraction(0.001, min=0)) == ""
    with pytest.raises(UsageError, match="min is -1"):
        sample.fraction(0.5, min=-1)


def test_halves_are_rounded_up() -> None:
    assert [len(drawn(sample.fraction(f))) for f in (0.14, 0.15, 0.25, 0.35, 0.949, 0.95)] == [1, 2, 3, 4, 9, 10]


def test_turns_go_on_at_the_beginning() -> None:
    assert [drawn(sample.cyclic(4), round=r) for r in range(1, 7)] == ["abcd", "efgh", "ijab", "cdef", "ghij", "abcd"]
    assert drawn(sample.cyclic(11), round=5) == "abcdefghij"


def test_a_turn_far_away() -> None:
    assert drawn(sample.cyclic(3), round=10**15 + 1) == "abc"


def test_all_are_everyone() -> None:
    assert drawn(sample.everyone()) == "abcdefghij"
    assert drawn(sample.poisson(1)) == "abcdefghij"
    assert drawn(sample.fraction(1)) == "abcdefghij"


class TestWeighted:
    def test_a_label_as_weight(self) -> None:
        texts = {"a": "3", "b": "0", "c": "many", "d": "-1", "e": "nan", "f": "inf", "g": " 1e3 "}
        population = Population(tuple("abcdefgh"), {name: {"patients": text} for name, text in texts.items()})
        assert drawn(sample.weighted(5, label="patients"), population) == "ag"

    def test_one_bad_label_does_not_end_the_run(self) -> None:
        population = Population(("a", "b"), {"a": {"n": 3}, "b": {"n": "3"}})  # type: ignore[dict-item]  # the point
        assert set(drawn(sample.weighted(2, label="n"), population)) == {"a", "b"}
        population = Population(("a", "b"), {"a": {"n": [3]}, "b": {"n": "3"}})  # type: ignore[dict-item]  # the point
        assert drawn(sample.weighted(2, label="n"), population) == "b"

    def test_weights_of_any_size(self) -> None:
        assert drawn(sample.weighted(1, weights={"a": 1e300, "b": 1e-300, "c": 5e-324})) == "a"
        assert len(drawn(sample.weighted(2, weights={"a": 5e-324, "b": 1e-320, "c": 1e308}))) == 2

    def test_nobody_can_be_drawn(self) -> None:
        with pytest.raises(EmptyPopulation, match="none of 10 clients has the label 'patients' with a number > 0"):
            drawn(sample.weighted(3, label="patients"))
        with pytest.raises(EmptyPopulation, match="none of 10 clients has a weight > 0"):
            drawn(sample.weighted(3, weights={"x": 1}))

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            ({}, "exactly one of the two"),
            ({"weights": {}}, "exactly one of the two"),
            ({"weights": {"a": 1}, "label": "n"}, "exactly one of the two"),
            ({"label": 3}, "exactly one of the two"),
            ({"weights": {"a": -1}}, "the weight of 'a' is -1"),
            ({"weights": {"a": math.nan}}, "the weight of 'a' is nan"),
            ({"weights": {"a": True}}, "the weight of 'a' is True"),
            ({"weights": {"a": 0}}, "all weights are 0"),
            ({"weights": [1, 2]}, "weights is a list"),
        ],
    )
    def test_arguments_that_make_no_sense(self, arguments: dict[str, Any], text: str) -> None:
        with pytest.raises(UsageError, match=text):
            sample.weighted(3, **arguments)

    def test_the_order_of_weights_means_nothing(self) -> None:
        assert sample.weighted(1, weights={"a": 1, "b": 2}) == sample.weighted(1, weights={"b": 2, "a": 1})
