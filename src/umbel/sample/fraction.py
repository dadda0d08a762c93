"""A fixed share of the clients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np

from umbel.arguments import number, whole
from umbel.sample.base import Population, Sampler, pick


@final
@dataclass(frozen=True, slots=True)
class Fraction(Sampler):
    """A share of the population, rounded to whole clients; see `fraction`."""

    share: float
    min: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "share", number(self.share, "fraction(): the share", above=0, most=1))
        object.__setattr__(self, "min", whole(self.min, "fraction(): min", least=0))

    def rate(self, population_size: int) -> float | None:
        """The cohort's size over the population's."""
        return self._count(population_size) / population_size if population_size else 0.0

    def draw(self, population: Population, *, round: int, rng: np.random.Generator) -> tuple[str, ...]:  # noqa: ARG002
        """A subset of the size that the share gives."""
        return pick(population, self._count(len(population)), rng)

    def _count(self, size: int) -> int:
        return min(size, max(self.min, math.floor(self.share * size + 0.5)))


def fraction(share: float, *, min: int = 1) -> Sampler:
    """A fixed share of the clients, each subset of that size equally likely.

    The cohort has share * n clients, rounded half up, but at least ``min`` and at most all n.

    Args:
        share: 0 < share <= 1.
        min: the smallest cohort, >= 0.

    Raises:
        UsageError: an argument that makes no sense.

    Cost: O(cohort), and one pass over the indices if the cohort is large.
    """
    return Fraction(share, min)


__all__ = ["Fraction", "fraction"]
