"""Some clients more often than others.

Source: Efraimidis and Spirakis, Weighted random sampling with a reservoir, Information Processing Letters 97,
2006, algorithm A-ES. https://doi.org/10.1016/j.ipl.2005.11.003
Differs: the keys are log(-log(u)) - log(w), smallest first, instead of u^(1 / w), largest first; the order is the
same, and weights of any size have keys of their own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from umbel.arguments import number, whole
from umbel.errors import EmptyPopulation, UsageError
from umbel.sample.base import Population, Sampler


@final
@dataclass(frozen=True, slots=True)
class Weighted(Sampler):
    """So many clients, with unequal chances; see `weighted`."""

    size: int
    weights: tuple[tuple[str, float], ...] = ()
    label: str = ""

    def __post_init__(self) -> None:
        checked = tuple((name, number(w, f"weighted(): the weight of {name!r}", least=0)) for name, w in self.weights)
        if bool(checked) == bool(self.label) or not isinstance(self.label, str):
            raise UsageError(
                "weighted() needs the weights by name, or the label that holds them: exactly one of the two",
                advice='write weights={"berlin": 3, "paris": 1}, or label="patients"',
            )
        if checked and not any(w for _, w in checked):
            raise UsageError("weighted(): all weights are 0", advice="give at least one client a weight > 0")
        object.__setattr__(self, "size", whole(self.size, "weighted(): the number of clients"))
        object.__setattr__(self, "weights", tuple(sorted(checked)))

    def draw(self, population: Population, *, round: int, rng: np.random.Generator) -> tuple[str, ...]:  # noqa: ARG002
        """Draw one after the other, each time in proportion to the weights of those who are left."""
        weights = self._weights(population)
        able = np.flatnonzero(weights > 0)
        if len(population) and not len(able):
            source = f"the label {self.label!r} with a number > 0" if self.label else "a weight > 0"
            raise EmptyPopulation(f"none of {len(population)} clients has {source}", advice="check the spelling")
        if len(able) > self.size:
            with np.errstate(divide="ignore"):  # log(0), once in 2^64 draws, is -inf: the first of all, as it should
                keys = np.log(rng.standard_exponential(len(able))) - np.log(weights[able])
            able = np.sort(able[np.argpartition(keys, self.size - 1)[: self.size]])
        return population.at(able)

    def eligible(self, population: Population) -> Population:
        """Those who have a weight."""
        able = population.at(np.flatnonzero(self._weights(population) > 0))
        return Population(able, {name: population.labels[name] for name in able if name in population.labels})

    def _weights(self, population: Population) -> npt.NDArray[np.float64]:
        if self.label:
            found = (_read(population.labels.get(name, {}).get(self.label)) for name in population.names)
        else:
            given = dict(self.weights)
            found = (given.get(name, 0.0) for name in population.names)
        return np.fromiter(found, np.float64, len(population))


def _read(text: str | None) -> float:
    """A label as a weight; 0 for what is no weight: one client's bad label must not end a run."""
    try:
        weight = float(text) if text is not None else 0.0
    except (TypeError, ValueError):
        return 0.0
    return weight if 0 < weight < math.inf else 0.0


def weighted(size: int, *, weights: Mapping[str, float] | None = None, label: str = "") -> Sampler:
    """A fixed number of clients, some more likely than others.

    The first client is drawn with a probability in proportion to its weight, the second in the same way from
    those who are left, and so on. Here "weight" is the chance to be asked; in the mean an update still counts
    with the weight that it brings.

    Args:
        size: how many clients, >= 1.
        weights: weight by client's name, finite and >= 0.
        label: or the label whose value is the client's weight, such as a number of patients.
            Who has no weight, or 0, or a label that is no number, is never drawn; if fewer than ``size``
            clients can be drawn, all of them are.

    Raises:
        UsageError: an argument that makes no sense; both or neither of weights and label.

    Cost: one random number per client of the population.
    """
    if weights is not None and not isinstance(weights, Mapping):
        raise UsageError(f"weighted(): weights is a {type(weights).__name__}", advice='write weights={"berlin": 3}')
    return Weighted(size, tuple((weights or {}).items()), label)


__all__ = ["Weighted", "weighted"]
