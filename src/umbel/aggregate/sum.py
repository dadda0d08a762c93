"""The sum of updates, whatever weights they state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from umbel.aggregate.base import Aggregator
from umbel.aggregate.expected import Expected
from umbel.aggregate.weighted_sum import WeightedSum
from umbel.arrays import Arrays
from umbel.update import Update


@final
@dataclass(frozen=True, slots=True)
class Sum(Aggregator):
    """The sum of the updates; see `sum`."""

    result: ClassVar[str] = "sum"
    summing: ClassVar[bool] = True

    @property
    def uniform(self) -> bool:
        """Yes: weights play no part."""
        return True

    def expects(self, sent: Arrays | None) -> Expected:
        """Whole models, or any values."""
        return Expected(sent=sent.spec if sent is not None else None, shapes="equal" if sent is not None else "free")

    def init(self, sent: Arrays | None) -> WeightedSum:
        """An empty sum."""
        return WeightedSum(sent)

    def admit(self, acc: WeightedSum, update: Update) -> None:
        """Values need the entries and shapes of those before them."""
        acc.admit(update)

    def fold(self, acc: WeightedSum, update: Update) -> WeightedSum:
        """Add the update."""
        acc.add(update, 1.0)
        return acc

    def merge(self, acc: WeightedSum, later: WeightedSum) -> WeightedSum:
        """Add the sums."""
        acc.merge(later)
        return acc

    def finish(self, acc: WeightedSum) -> Arrays | None:
        """The sum itself."""
        return acc.total.freeze() if acc.total is not None and acc.count else None


def sum() -> Aggregator:  # named as the operation; the built-in is not used in this file
    """The sum of the clients' updates; integers are summed exactly in 64 bits."""
    return Sum()


__all__ = ["Sum", "sum"]
