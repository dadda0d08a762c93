"""Every sampler passes the suite of umbel.testing; broken ones do not."""

# ruff: noqa: ARG002  # hooks take what they are given
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

import umbel
from umbel.sample import Population, Sampler
from umbel.testing import check_sampler

sample = umbel.sample
OURS = [
    sample.everyone(),
    sample.count(1),
    sample.count(7),
    sample.fraction(0.1),
    sample.fraction(1.0),
    sample.poisson(0.3),
    sample.poisson(1.0),
    sample.cyclic(3),
    sample.everyone().where(site="eu"),
    sample.poisson(0.2).where(site="eu"),
    sample.count(3).where(site="nowhere"),
]


@pytest.mark.parametrize("sampler", OURS, ids=repr)
def test_ours(sampler: Sampler) -> None:
    check_sampler(sampler)


def test_from_a_population_of_ones_own() -> None:
    check_sampler(sample.fraction(0.5), population=Population(("a", "b", "c")))
    check_sampler(sample.weighted(2, weights={"a": 1.0, "b": 2.0, "c": 3.0}), population=Population(("a", "b", "c")))


@dataclass(frozen=True)
class Right(Sampler):
    """Half of the clients; those below are wrong in one thing each."""

    def rate(self, population_size: int) -> float | None:
        return max(1, population_size // 2) / population_size if population_size else 0.0

    def draw(self, population: Population, *, round: int, rng: np.random.Generator) -> tuple[str, ...]:
        order = rng.permutation(len(population))
        return tuple(population.names[i] for i in order[: max(1, len(population) // 2)])


def test_one_of_ones_own() -> None:
    check_sampler(Right())


@dataclass(frozen=True)
class Twice(Right):
    def draw(self, population: Population, *, round: int, rng: np.random.Generator) -> tuple[str, ...]:
        return tuple(rng.choice(population.names, len(population)).tolist()) if len(population) else ()


@dataclass(frozen=True)
class Stranger(Right):
    def draw(self, population: Population, *, round: int, rng: np.random.Generator) -> tuple[str, ...]:
        return ("nobody",) if len(population) else ()


@dataclass(frozen=True)
class Moody(Right):
    own: ClassVar[np.random.Generator] = np.random.default_rng(1)

    def draw(self, population: Population, *, round: int, rng: np.random.Generator) -> tuple[str, ...]:
        return super().draw(population, round=round, rng=self.own)


@dataclass(frozen=True)
class Remembering(Right):
    """Draws whoever was not drawn before."""

    seen: ClassVar[list[int]] = []

    def draw(self, population: Population, *, round: int, rng: np.random.Generator) -> tuple[str, ...]:
        self.seen.append(round)
        return population.names[len(self.seen) % len(population) :][:1] if len(population) else ()


@dataclass(frozen=True)
class Crowded(Right):
    """Cannot bear a population of nobody."""

    def draw(self, population: Population, *, round: int, rng: np.random.Generator) -> tuple[str, ...]:
        return (population.names[round % len(population)],)

    def rate(self, population_size: int) -> float | None:
        return None


@dataclass(frozen=True)
class Favourite(Right):
    """Its rate is not that of the first client."""

    def draw(self, population: Population, *, round: int, rng: np.random.Generator) -> tuple[str, ...]:
        return population.names[: max(1, len(population) // 2)] if len(population) else ()


@dataclass(frozen=True)
class Together(Sampler):
    """Says that it is Poisson sampling, and draws all clients or none."""

    is_poisson: ClassVar[bool] = True

    def rate(self, population_size: int) -> float | None:
        return 0.5

    def draw(self, population: Population, *, round: int, rng: np.random.Generator) -> tuple[str, ...]:
        return population.names if rng.random() < 0.5 else ()


@dataclass(frozen=True)
class Percent(Right):
    def rate(self, population_size: int) -> float | None:
        return 50.0


@dataclass(frozen=True)
class Outsider(Right):
    """Draws clients that it says are not eligible."""

    def eligible(self, population: Population) -> Population:
        return Population(population.names[:1])


@dataclass(frozen=True)
class NoValue(Right):
    rule: Any = print


BROKEN: list[tuple[Any, str]] = [
    (Twice(), "at most once"),
    (Stranger(), "clients of the population"),
    (Moody(), "same cohort for the same stream"),
    (Remembering(), "same cohort for the same stream"),
    (Crowded(), "draw from 0 clients"),
    (Favourite(), "at its rate"),
    (Together(), "toss for each client alone"),
    (Percent(), "a rate from 0 to 1"),
    (Outsider(), "that are eligible"),
    (NoValue(), "be a value"),
    (0.1, "derive from umbel.sample.Sampler"),
]


@pytest.mark.parametrize(("sampler", "says"), BROKEN, ids=lambda x: type(x).__name__)
def test_a_broken_one_is_refused(sampler: Any, says: str) -> None:
    with pytest.raises(AssertionError, match=f"(?s)^a sampler must .*({says})"):
        check_sampler(sampler)
