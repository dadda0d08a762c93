"""The sum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from umbel.metrics.base import Combiner, Result, Values, result


@final
@dataclass(frozen=True, slots=True)
class Sum(Combiner):
    """The sum; see `sum`."""

    def names(self, name: str) -> tuple[str, ...]:
        """The metric's own name."""
        return (name,)

    def combine(self, name: str, values: Values, weights: Values) -> Mapping[str, Result]:  # noqa: ARG002
        """The sum of the values."""
        with np.errstate(all="ignore"):
            return {name: result(np.add.reduce(values, axis=0))}


def sum() -> Combiner:
    """The sum over the clients, whatever their weights: {name: value}.

    For counts: a confusion matrix, a number of examples. Exact up to 2^53.
    """
    return Sum()


__all__ = ["Sum", "sum"]
