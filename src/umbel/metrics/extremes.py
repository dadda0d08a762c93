"""The smallest and largest values, and the mean of the worst: how the clients fare that a mean hides."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from umbel.arguments import number
from umbel.errors import UsageError
from umbel.metrics.base import Combiner, Result, Values, average, percent, result


@final
@dataclass(frozen=True, slots=True)
class Minimum(Combiner):
    """The smallest value; see `minimum`."""

    def names(self, name: str) -> tuple[str, ...]:
        """The metric's name with .min."""
        return (f"{name}.min",)

    def combine(self, name: str, values: Values, weights: Values) -> Mapping[str, Result]:  # noqa: ARG002
        """The smallest value, element by element."""
        return {f"{name}.min": result(values.min(axis=0))}


@final
@dataclass(frozen=True, slots=True)
class Maximum(Combiner):
    """The largest value; see `maximum`."""

    def names(self, name: str) -> tuple[str, ...]:
        """The metric's name with .max."""
        return (f"{name}.max",)

    def combine(self, name: str, values: Values, weights: Values) -> Mapping[str, Result]:  # noqa: ARG002
        """The largest value, element by element."""
        return {f"{name}.max": result(values.max(axis=0))}


@final
@dataclass(frozen=True, slots=True)
class Worst(Combiner):
    """The mean over the worst share of the clients; see `worst`."""

    share: float
    highest: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "share", number(self.share, "worst(): the share of clients", above=0, most=1))
        if not isinstance(self.highest, bool):
            raise UsageError(f"worst(): highest is {self.highest!r}", advice="give True or False")

    def names(self, name: str) -> tuple[str, ...]:
        """The metric's name with .worst and the percentage."""
        return (f"{name}.worst{percent(self.share)}",)

    def combine(self, name: str, values: Values, weights: Values) -> Mapping[str, Result]:  # noqa: ARG002
        """Sort, and take the mean of one end."""
        count = max(1, math.floor(self.share * len(values) + 0.5))
        ordered = np.sort(values, axis=0)
        end = ordered[::-1][:count] if self.highest else ordered[:count]
        centre = average(np.ascontiguousarray(end), count)
        return {self.names(name)[0]: result(np.clip(centre, end.min(axis=0), end.max(axis=0)))}


def minimum() -> Combiner:
    """The smallest value over the clients: {name.min: value}. Of arrays, element by element."""
    return Minimum()


def maximum() -> Combiner:
    """The largest value over the clients: {name.max: value}. Of arrays, element by element."""
    return Maximum()


def worst(share: float, *, highest: bool = False) -> Combiner:
    """The mean over the clients that fare worst, each counting the same.

    A share of 0.1 of the metric "accuracy" is named "accuracy.worst10". The worst are share * n clients,
    rounded half up, and at least one. Of arrays, each element has its own.

    Args:
        share: 0 < share <= 1.
        highest: the highest values are the worst, as of a loss; otherwise the lowest, as of an accuracy.

    Raises:
        UsageError: an argument that makes no sense.

    Source: Li et al., Fair Resource Allocation in Federated Learning, ICLR 2020, section 4, which reports the
    worst and best 10 % of the devices. https://arxiv.org/abs/1905.10497
    """
    return Worst(share, highest)


__all__ = ["Maximum", "Minimum", "Worst", "maximum", "minimum", "worst"]
