"""The weighted mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from umbel.metrics.base import Combiner, Result, Values, average, result


@final
@dataclass(frozen=True, slots=True)
class Mean(Combiner):
    """The weighted mean; see `mean`."""

    def names(self, name: str) -> tuple[str, ...]:
        """The metric's own name."""
        return (name,)

    def combine(self, name: str, values: Values, weights: Values) -> Mapping[str, Result]:
        """The sum of weight * value over the sum of the weights."""
        counted = weights > 0
        if counted.any():
            values, weights = values[counted], weights[counted]
        else:
            weights = np.ones_like(weights)
        with np.errstate(all="ignore"):
            share = np.ldexp(weights, -np.frexp(weights.max())[1])  # in range, and not rounded
            column = share.reshape(-1, *[1] * (values.ndim - 1))
            centre = average(column * values, np.add.reduce(share))
            # Rounding must not take the mean of equal values, or of one client, away from that value.
            return {name: result(np.clip(centre, values.min(axis=0), values.max(axis=0)))}


def mean() -> Combiner:
    """The mean over the clients, weighted by the weights of their updates: {name: value}.

    Lies between the smallest and the largest value to the last bit. Clients of weight 0 do not count; if all
    weights are 0, all clients count the same: a mean of what is there says more than nothing at all.
    """
    return Mean()


__all__ = ["Mean", "mean"]
