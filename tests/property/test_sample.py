"""What holds for every sampler and every population."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel import sample
from umbel.codec import decode, encode
from umbel.rng import stream
from umbel.sample import Population, Sampler

names = st.lists(st.text(min_size=1, max_size=4), unique=True, max_size=60)
counts = st.integers(1, 80)
shares = st.floats(0, 1, exclude_min=True)
seeds = st.integers(0, 2**32)
rounds = st.integers(1, 1000)
samplers: st.SearchStrategy[Sampler] = st.one_of(
    st.builds(sample.fraction, shares, min=st.integers(0, 80)),
    st.builds(sample.count, counts),
    st.builds(sample.poisson, shares),
    st.builds(sample.cyclic, counts),
    st.builds(sample.everyone),
    st.builds(sample.weighted, counts, label=st.just("patients")),
)


@st.composite
def populations(draw: st.DrawFn, minimum: int = 0) -> Population:
    people = draw(st.lists(st.text(min_size=1, max_size=4), unique=True, min_size=minimum, max_size=60))
    labels = {n: {"site": draw(st.sampled_from("abc")), "patients": str(draw(st.integers(1, 99)))} for n in people}
    return Population(tuple(people), labels)


@given(samplers, populations(), rounds, seeds)
def test_a_cohort_is_a_set_of_clients(sampler: Sampler, population: Population, round: int, seed: int) -> None:
    cohort = sampler.draw(population, round=round, rng=stream(seed, "cohort", round))
    assert len(set(cohort)) == len(cohort)
    assert set(cohort) <= set(population.names)
    assert all(type(name) is str for name in cohort)


@given(samplers, populations(), rounds, seeds, st.randoms(use_true_random=False))
def test_a_draw_depends_on_names_and_stream_alone(
    sampler: Sampler, population: Population, round: int, seed: int, shuffler: Any
) -> None:
    mixed = list(population.names)
    shuffler.shuffle(mixed)
    other = Population(tuple(mixed), {name: population.labels[name] for name in mixed})
    assert sampler.draw(population, round=round, rng=stream(seed)) == sampler.draw(other, round=round, rng=stream(seed))


@given(samplers, populations(minimum=1), rounds, seeds, st.sampled_from("abc"))
def test_a_filtered_sampler_sees_only_its_part(
    sampler: Sampler, population: Population, round: int, seed: int, site: str
) -> None:
    part = tuple(n for n in population.names if population.labels[n]["site"] == site)
    if not part:
        return
    alone = Population(part, {name: population.labels[name] for name in part})
    filtered = sampler.where(site=site)
    assert filtered.draw(population, round=round, rng=stream(seed)) == sampler.draw(
        alone, round=round, rng=stream(seed)
    )
    assert filtered.is_poisson == sampler.is_poisson


@given(shares, st.integers(0, 80), populations(), seeds)
def test_a_fraction_has_its_size(share: float, least: int, population: Population, seed: int) -> None:
    n = len(population)
    sampler = sample.fraction(share, min=least)
    expected = min(n, max(least, math.floor(share * n + 0.5)))
    assert len(sampler.draw(population, round=1, rng=stream(seed))) == expected
    if n:
        assert sampler.rate(n) == expected / n


@given(counts, populations(), seeds)
def test_a_count_is_met_or_all_there_are(size: int, population: Population, seed: int) -> None:
    cohort = sample.count(size).draw(population, round=1, rng=stream(seed))
    assert len(cohort) == min(size, len(population))


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 200), st.integers(1, 60))
def test_taking_turns_is_fair(size: int, n: int, first: int, many: int) -> None:
    population = Population(tuple(f"c{i:02}" for i in range(n)))

    def turns(rounds: range) -> list[tuple[str, ...]]:
        return [sample.cyclic(size).draw(population, round=r, rng=stream(0)) for r in rounds]

    asked = Counter(dict.fromkeys(population.names, 0))
    for cohort in turns(range(1, many + 1)):
        assert len(set(cohort)) == len(cohort) == min(size, n)
        asked.update(cohort)
    assert max(asked.values()) - min(asked.values()) <= 1
    once_around = turns(range(first, first + math.ceil(n / size)))
    assert {name for cohort in once_around for name in cohort} == set(population.names)


@given(counts, st.dictionaries(st.sampled_from("abcdefghij"), st.floats(0, 1e300), min_size=1), seeds)
def test_who_has_no_weight_is_never_drawn(size: int, weights: dict[str, float], seed: int) -> None:
    able = {name for name, w in weights.items() if w > 0}
    if not able:
        return
    population = Population(tuple("abcdefghij"))
    cohort = sample.weighted(size, weights=weights).draw(population, round=1, rng=stream(seed))
    assert set(cohort) <= able
    assert len(cohort) == min(size, len(able))


@given(samplers, st.booleans())
def test_a_sampler_travels(sampler: Sampler, filtered: bool) -> None:
    sampler = sampler.where(site="eu", unit="icu") if filtered else sampler
    there = decode(encode(sampler, lambda _: ""), lambda _: None)  # type: ignore[arg-type, return-value]  # no arrays
    assert there == sampler
    assert hash(there) == hash(sampler)


@given(names)
def test_a_population_knows_its_places(people: list[str]) -> None:
    population = Population(tuple(people))
    assert population.names == tuple(sorted(people))
    assert len(population) == len(people)
    for name in people:
        assert name in population
        assert population.names[population.index(name)] == name
    assert "somebody else" not in population
    assert None not in population


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (sample.fraction(0.25), [0.25] * 8),
        (sample.count(2), [0.25] * 8),
        (sample.poisson(0.25), [0.25] * 8),
        (sample.weighted(1, weights={"c0": 1, "c1": 3, "c7": 4}), [0.125, 0.375, 0, 0, 0, 0, 0, 0.5]),
        # the second of two: P(c0) = w0 + w1 * w0 / (1 - w1) + w7 * w0 / (1 - w7), and so on
        (sample.weighted(2, weights={"c0": 1, "c1": 1, "c7": 2}), [7 / 12, 7 / 12, 0, 0, 0, 0, 0, 5 / 6]),
    ],
    ids=repr,
)
def test_everyone_is_drawn_as_often_as_promised(sampler: Sampler, expected: list[float]) -> None:
    """20,000 draws of one fixed stream; six standard deviations are at most .022."""
    population = Population(tuple(f"c{i}" for i in range(8)))
    rng = stream(1, "frequencies")
    asked = Counter(name for r in range(20_000) for name in sampler.draw(population, round=r + 1, rng=rng))
    assert [asked[name] / 20_000 for name in population.names] == pytest.approx(expected, abs=0.022)
    if sampler.rate(8) is not None:
        assert sampler.rate(8) == expected[0]


def test_poisson_is_independent_from_client_to_client() -> None:
    """The size of a cohort has the variance of a binomial number."""
    population = Population(tuple(map(str, range(50))))
    rng = stream(2, "variance")
    sizes = [len(sample.poisson(0.3).draw(population, round=1, rng=rng)) for _ in range(20_000)]
    assert np.mean(sizes) == pytest.approx(15, abs=0.15)
    assert np.var(sizes) == pytest.approx(10.5, rel=0.06)
