"""A fixed number of clients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from umbel.arguments import whole
from umbel.sample.base import Population, Sampler, pick


@final
@dataclass(frozen=True, slots=True)
class Count(Sampler):
    """So many clients; see `count`."""

    size: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", whole(self.size, "count(): the number of clients"))

    def rate(self, population_size: int) -> float | None:
        """The cohort's size over the population's."""
        return min(1.0, self.size / population_size) if population_size else 0.0

    def draw(self, population: Population, *, round: int, rng: np.random.Generator) -> tuple[str, ...]:  # noqa: ARG002
        """A subset of that size."""
        return pick(population, self.size, rng)


def count(size: int) -> Sampler:
    """A fixed number of clients, each subset of that size equally likely.

    Args:
        size: how many, >= 1. If the population is smaller, all of it is the cohort; to wait for more
            clients or to stop, use ``umbel.rounds(min_nodes=...)``.

    Raises:
        UsageError: the number is not a whole number >= 1.

    Cost: O(cohort), and one pass over the indices if the cohort is large.
    """
    return Count(size)


__all__ = ["Count", "count"]
