"""One group of clients after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from umbel.arguments import whole
from umbel.sample.base import Population, Sampler


@final
@dataclass(frozen=True, slots=True)
class Cyclic(Sampler):
    """Round-robin through the population; see `cyclic`."""

    size: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", whole(self.size, "cyclic(): the number of clients"))

    def draw(self, population: Population, *, round: int, rng: np.random.Generator) -> tuple[str, ...]:  # noqa: ARG002
        """The clients whose turn it is."""
        n = len(population)
        if self.size >= n:
            return population.names
        return population.at(((round - 1) * self.size + np.arange(self.size)) % n)


def cyclic(size: int) -> Sampler:
    """Round-robin through the population in the order of names. Draws nothing from the stream.

    Round 1 takes the first ``size`` clients, round 2 the next, and so on. A group that reaches the end goes on
    at the beginning: every cohort has ``size`` clients, within any ceil(n / size) rounds in a row every client
    takes part at least once, and over any number of rounds two clients differ by at most one.

    The turn follows from the round and the names alone; when clients come or go, it starts from the new order.

    Args:
        size: how many clients a round takes, >= 1; if the population is smaller, all of it.

    Raises:
        UsageError: the number is not a whole number >= 1.
    """
    return Cyclic(size)


__all__ = ["Cyclic", "cyclic"]
