"""Quantiles over the clients.

Source: Hyndman and Fan, Sample Quantiles in Statistical Packages, The American Statistician 50, 1996,
definition 7. https://doi.org/10.1080/00031305.1996.10473566
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from umbel.arguments import number
from umbel.errors import UsageError
from umbel.metrics.base import Combiner, Result, Values, percent, result


@final
@dataclass(frozen=True, slots=True)
class Quantiles(Combiner):
    """Quantiles, each client counting the same; see `quantiles`."""

    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        shares = tuple(number(q, "quantiles(): a quantile", least=0, most=1) for q in self.shares)
        if not shares or len(set(map(percent, shares))) != len(shares):
            raise UsageError(
                f"quantiles() was given {', '.join(map(str, shares)) or 'none'}",
                advice="name at least one, each once: quantiles(0.1, 0.5, 0.9)",
            )
        object.__setattr__(self, "shares", shares)

    def names(self, name: str) -> tuple[str, ...]:
        """The metric's name with .q and the percentage."""
        return tuple(f"{name}.q{percent(q)}" for q in self.shares)

    def combine(self, name: str, values: Values, weights: Values) -> Mapping[str, Result]:  # noqa: ARG002
        """Between the two clients next to the quantile, linearly."""
        with np.errstate(all="ignore"):
            found = np.quantile(values, self.shares, axis=0)
            if not np.isfinite(found).all():  # the gap between two values is beyond float64
                found = np.where(np.isfinite(found), found, 2 * np.quantile(values / 2, self.shares, axis=0))
        return {key: result(value) for key, value in zip(self.names(name), found, strict=True)}


def quantiles(*shares: float) -> Combiner:
    """Quantiles over the clients, each client counting the same.

    The results are named by percentages, without needless zeros: of the metric "loss", 0.1 gives "loss.q10",
    0.5 "loss.q50", 0.999 "loss.q99.9". Between two clients a quantile is interpolated linearly. Of arrays,
    each element is taken by itself.

    Args:
        shares: one or more of 0 (the smallest value) to 1 (the largest).

    Raises:
        UsageError: none, one twice, or one that is out of range.
    """
    return Quantiles(shares)


__all__ = ["Quantiles", "quantiles"]
