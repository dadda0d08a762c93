"""All clients, in every round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from umbel.sample.base import Population, Sampler


@final
@dataclass(frozen=True, slots=True)
class Everyone(Sampler):
    """Everyone; see `everyone`."""

    def rate(self, population_size: int) -> float | None:  # noqa: ARG002
        """Certain."""
        return 1.0

    def draw(self, population: Population, *, round: int, rng: np.random.Generator) -> tuple[str, ...]:  # noqa: ARG002
        """All names."""
        return population.names


def everyone() -> Sampler:
    """All clients, in every round. Draws nothing from the stream."""
    return Everyone()


__all__ = ["Everyone", "everyone"]
