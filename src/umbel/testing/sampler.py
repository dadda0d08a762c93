"""What a `Sampler` must do: draw names from the population, from the stream that it is given alone."""

from __future__ import annotations

import numpy as np

from umbel.errors import EmptyPopulation
from umbel.sample import Population, Sampler
from umbel.testing.promise import Promise

_A_SAMPLER = Promise("a sampler")
_require, _doing = _A_SAMPLER.require, _A_SAMPLER.doing
_DRAWS = 400  # enough to tell a rate from another; drawn from fixed seeds, so that the answer is always the same
_SIGMAS = 6.0


def check_sampler(sampler: Sampler, *, population: Population | None = None) -> None:
    """Check a sampler of one's own; runs with it can then be repeated and resumed.

    - it is a value: it can be written down and read back;
    - it draws clients of the population, each at most once, those that are `eligible`;
    - the same stream, round and population give the same cohort, whatever was drawn before;
    - nobody is drawn from nobody, and that is no error;
    - each client is drawn as often as `rate` says, and independently of the others if `is_poisson`.

    Args:
        sampler: the one to check.
        population: whom to draw from; by default 40 clients with labels.

    Raises:
        AssertionError: says what the sampler must do.
    """
    _require(isinstance(sampler, Sampler), f"derive from umbel.sample.Sampler, not be {sampler!r}")
    _A_SAMPLER.written_down(sampler, "be a value")
    whole = population if population is not None else _sample(40)
    for size in range(1, 4):
        _draws(
            sampler, Population(whole.names[:size], {n: whole.labels[n] for n in whole.names[:size] if whole.labels})
        )
    _require(_draw(sampler, Population(()), 1, 0) == (), "draw nobody from a population of nobody")
    _check_rate(sampler, whole, _draws(sampler, whole))


def _sample(size: int) -> Population:
    names = tuple(f"client {i:02}" for i in range(size))
    return Population(names, {name: {"site": "eu" if i % 2 else "us"} for i, name in enumerate(names)})


def _draw(sampler: Sampler, population: Population, round: int, seed: int) -> tuple[str, ...]:
    with _doing(f"draw from {len(population)} clients"):
        try:
            return tuple(sampler.draw(population, round=round, rng=np.random.default_rng((round, seed))))
        except EmptyPopulation:
            return ()  # there are clients, but none that it could ever draw


def _draws(sampler: Sampler, population: Population) -> list[tuple[str, ...]]:
    """The cohorts of some rounds, each a lawful one."""
    eligible = set(sampler.eligible(population).names)
    cohorts = [_draw(sampler, population, number, 1) for number in range(1, _DRAWS + 1)]
    for number, cohort in enumerate(cohorts[:20], 1):
        _require(len(set(cohort)) == len(cohort), f"draw each client at most once; round {number} has one twice")
        strangers = sorted(set(cohort) - set(population.names))
        _require(not strangers, f"draw clients of the population; {strangers[:1]} is none")
        _require(set(cohort) <= eligible, "draw clients that are eligible")
    for number in (3, 1, 2):
        again = _draw(sampler, population, number, 1)
        _require(again == cohorts[number - 1], "draw the same cohort for the same stream, round and population")
    return cohorts


def _check_rate(sampler: Sampler, population: Population, cohorts: list[tuple[str, ...]]) -> None:
    rate = sampler.rate(len(population))
    if rate is None:
        return
    _require(0 <= rate <= 1, f"have a rate from 0 to 1, not {rate}")
    eligible = sampler.eligible(population).names
    drawn = {name: sum(name in cohort for cohort in cohorts) / len(cohorts) for name in eligible}
    most = _SIGMAS * np.sqrt(max(rate * (1 - rate), 1e-12) / len(cohorts))
    wrong = next((name for name, share in drawn.items() if abs(share - rate) > most), None)
    if wrong is not None:
        _require(False, f"draw each client at its rate of {rate:g}; {wrong!r} is in {drawn[wrong]:.1%} of the cohorts")
    if sampler.is_poisson:
        sizes = np.array([len(cohort) for cohort in cohorts])
        expected = len(eligible) * rate * (1 - rate)
        spread = float(sizes.var())
        lawful = abs(spread - expected) <= _SIGMAS * expected * np.sqrt(2 / len(cohorts)) + 1e-9
        words = f"toss for each client alone, if it is_poisson: the size of its cohorts varies by {spread:.3g}"
        _require(lawful, f"{words}, and should by {expected:.3g}")


__all__ = ["check_sampler"]
