"""Each client by a toss of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from umbel.arguments import number
from umbel.sample.base import Population, Sampler


@final
@dataclass(frozen=True, slots=True)
class Poisson(Sampler):
    """Each client with the same probability, independently; see `poisson`."""

    probability: float
    is_poisson: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "probability", number(self.probability, "poisson(): the rate", above=0, most=1))

    def rate(self, population_size: int) -> float | None:  # noqa: ARG002
        """The probability, however many clients there are."""
        return self.probability

    def draw(self, population: Population, *, round: int, rng: np.random.Generator) -> tuple[str, ...]:  # noqa: ARG002
        """Those whose uniform number is below the rate."""
        return population.at(np.flatnonzero(rng.random(len(population)) < self.probability))


def poisson(rate: float) -> Sampler:
    """Each client takes part with the same probability, independently of all others.

    The cohort's size varies from round to round, around rate * n; a cohort of nobody is lawful, and its
    round changes nothing. This is the sampling that most theorems on privacy amplification assume.

    Args:
        rate: the probability, 0 < rate <= 1.

    Raises:
        UsageError: the rate is out of range.

    Cost: one random number per client of the population.
    Source: Mironov, Talwar and Zhang, Rényi Differential Privacy of the Sampled Gaussian Mechanism, 2019,
    section 3. https://arxiv.org/abs/1908.10530
    """
    return Poisson(rate)


__all__ = ["Poisson", "poisson"]
