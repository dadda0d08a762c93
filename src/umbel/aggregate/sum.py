"""The sum of updates, whatever weights they state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from umbel.aggregate.base import Aggregator, Summing
from umbel.aggregate.weighted_sum import WeightedSum
from umbel.arrays import Arrays


@final
@dataclass(frozen=True, slots=True)
class Sum(Summing):
    """The sum of the updates; see `sum`."""

    result: ClassVar[str] = "sum"
    exact: ClassVar[bool] = True

    @property
    def uniform(self) -> bool:
        """Yes: weights play no part."""
        return True

    def weight(self, stated: float) -> float:
        """One."""
        del stated
        return 1.0

    def finish(self, acc: WeightedSum) -> Arrays | None:
        """The sum itself."""
        return acc.total.freeze() if acc.total is not None and acc.count else None


def sum() -> Aggregator:  # named as the operation; the built-in is not used in this file
    """The sum of the clients' updates; integers are summed exactly in 64 bits, modulo 2^64."""
    return Sum()


__all__ = ["Sum", "sum"]
