"""The population, and a sampler over a part of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from umbel import sample
from umbel.errors import EmptyPopulation, UsageError
from umbel.rng import stream
from umbel.sample import Population, Sampler

LABELS = {"berlin": {"site": "eu", "unit": "icu"}, "paris": {"site": "eu"}, "boston": {"site": "us", "unit": "icu"}}


@pytest.fixture
def population() -> Population:
    return Population(("paris", "lima", "berlin", "boston"), LABELS)


def drawn(sampler: Sampler, population: Population) -> tuple[str, ...]:
    return sampler.draw(population, round=1, rng=stream(0))


def test_names_are_sorted_and_plain() -> None:
    population = Population(("b", np.str_("a")))
    assert population.names == ("a", "b")
    assert [type(name) for name in population.names] == [str, str]


def test_a_list_of_names_will_do() -> None:
    assert Population(["b", "a"]) == Population(("a", "b"))  # type: ignore[arg-type]  # it is taken all the same


@pytest.mark.parametrize(
    ("names", "labels", "text"),
    [
        (("a", "b", "a"), {}, "two clients are called 'a'"),
        (("a", 3), {}, "a client is called 3"),
        ("abc", {}, r"the names of the clients are 'abc'\n.*\('abc',\)"),
        (("a",), {"b": {}}, "there are labels of 'b', who is not in the population"),
    ],
)
def test_a_population_that_makes_no_sense(names: Any, labels: Any, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        Population(names, labels)


def test_who_is_not_there_has_no_place(population: Population) -> None:
    with pytest.raises(UsageError, match="no client 'rome' in the population of 4"):
        population.index("rome")


def test_part_of_the_population(population: Population) -> None:
    assert drawn(sample.everyone().where(site="eu"), population) == ("berlin", "paris")
    assert drawn(sample.everyone().where(site="eu", unit="icu"), population) == ("berlin",)
    assert drawn(sample.everyone().where(site="eu").where(unit="icu"), population) == ("berlin",)
    assert drawn(sample.count(5).where(unit="icu"), population) == ("berlin", "boston")


def test_a_part_is_found_once(population: Population) -> None:
    """A population of a hundred thousand is searched in its first round only."""
    assert population.part((("site", "eu"),)) is population.part((("site", "eu"),))


def test_nobody_has_the_label(population: Population) -> None:
    with pytest.raises(EmptyPopulation) as caught:
        drawn(sample.fraction(0.5).where(site="EU"), population)
    assert str(caught.value) == (
        "none of 4 clients has site='EU'\n  What to do: check the spelling; there is site: 'eu', 'us'"
    )
    with pytest.raises(EmptyPopulation, match="ward: nobody has it"):
        drawn(sample.fraction(0.5).where(ward="x"), population)


def test_an_empty_population_gives_an_empty_cohort() -> None:
    """Whether that ends the run, the engine decides."""
    empty = Population(())
    for sampler in (sample.fraction(0.5), sample.count(3), sample.poisson(1), sample.cyclic(2), sample.everyone()):
        assert drawn(sampler, empty) == ()
        assert drawn(sampler.where(site="eu"), empty) == ()
    assert drawn(sample.weighted(2, weights={"a": 1}), empty) == ()


@pytest.mark.parametrize("labels", [{}, {"site": 3}, {"site": None}])
def test_labels_are_text(labels: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="where"):
        sample.everyone().where(**labels)


def test_the_order_of_labels_means_nothing() -> None:
    assert sample.everyone().where(a="1", b="2") == sample.everyone().where(b="2", a="1")


def test_what_accountants_ask() -> None:
    assert [s.is_poisson for s in (sample.poisson(0.1), sample.poisson(0.1).where(a="b"), sample.count(3))] == [
        True,
        True,
        False,
    ]
    assert sample.poisson(0.1).rate(10) == sample.poisson(0.1).rate(1000) == 0.1
    assert sample.count(5).rate(10) == 0.5
    assert sample.count(5).rate(3) == 1
    assert sample.fraction(0.1).rate(5) == 0.2
    assert sample.everyone().rate(7) == 1
    assert sample.cyclic(3).rate(9) is None
    assert sample.weighted(3, label="patients").rate(9) is None
    assert sample.fraction(0.1).rate(0) == sample.count(5).rate(0) == 0
    # Of how many clients the label is, a sampler cannot know; a Poisson sampler need not.
    assert sample.count(5).where(a="b").rate(10) is None
    assert sample.poisson(0.1).where(a="b").rate(10) == 0.1


def test_a_hundred_thousand_clients() -> None:
    population = Population(tuple(f"client-{i:06}" for i in range(100_000)))
    for sampler in (sample.fraction(0.001), sample.count(100), sample.cyclic(100)):
        assert len(drawn(sampler, population)) == 100
    assert 50 < len(drawn(sample.poisson(0.001), population)) < 150
