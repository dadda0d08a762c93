"""How the clients' values of one metric become one.

All arithmetic is in float64, over the clients in cohort order, and never through BLAS; so the bits depend on
the values alone, not on how many workers brought them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Result = float | npt.NDArray[np.float64]


class Combiner(ABC):
    """How the clients' values of one metric become one, or several, each with a name."""

    __slots__ = ()

    @abstractmethod
    def combine(self, name: str, values: Values, weights: Values) -> Mapping[str, Result]:
        """The combined values.

        Args:
            name: of the metric.
            values: shape (n,) for numbers or (n, *shape) for arrays; one per client that has the metric,
                n >= 1, in cohort order.
            weights: shape (n,), >= 0: the weights of these clients' updates.

        Returns:
            Numbers for numbers, arrays of that shape for arrays; by name.
        """

    def names(self, name: str) -> tuple[str, ...]:  # noqa: ARG002
        """The names of the results for a metric of this name; () if that is not known beforehand."""
        return ()


def result(value: Any) -> Result:
    """A number as a float, an array as a float64 array."""
    array: npt.NDArray[np.float64] = np.asarray(value, dtype=np.float64)
    return array if array.ndim else float(array)


def average(values: Values, count: Any) -> Any:
    """The sum over the first axis divided by a positive ``count``, even where that sum is beyond float64."""
    with np.errstate(all="ignore"):
        centre = np.add.reduce(values, axis=0) / count
        if not np.isfinite(centre).all():
            bits = len(values).bit_length()
            scaled = np.add.reduce(np.ldexp(values, -bits), axis=0) / count
            centre = np.where(np.isfinite(centre), centre, np.ldexp(scaled, bits))
    return centre


def percent(share: float) -> str:
    """A share as it stands in the name of a result: 0.1 is "10", 0.999 is "99.9", 0.0001 is "0.01"."""
    digits = f"{share:.15f}"  # as many decimal digits as a float is sure of
    whole, part = str(int(digits[0] + digits[2:4])), digits[4:].rstrip("0")
    return f"{whole}.{part}" if part else whole


__all__ = ["Combiner", "Result", "Values", "average", "percent", "result"]
