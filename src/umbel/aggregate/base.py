"""The reduce, as a monoid: fold updates one at a time, merge partial folds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from umbel.aggregate.expected import Expected
from umbel.aggregate.weighted_sum import WeightedSum
from umbel.arrays import Arrays
from umbel.rows import Rows
from umbel.update import Update


class Aggregator(ABC):
    """How the updates of a cohort become one.

    ``merge(fold(init, a), fold(init, b))`` equals ``fold(fold(init, a), b)`` up to rounding; the order is
    the cohort's, and need not be exchangeable. Who folds what therefore does not matter, and memory does
    not grow with the cohort. An accumulator belongs to the fold: ``fold`` and ``merge`` may change their
    first argument in place and return it, and ``finish``, which comes last, may make the result of it.

    Attributes:
        result: the name of the result: ``got.mean`` for "mean".
    """

    result: ClassVar[str] = "value"

    @property
    def uniform(self) -> bool:
        """Does every client count the same?"""
        return False

    @abstractmethod
    def expects(self, sent: Arrays | None) -> Expected:
        """What is accepted in answer to ``sent``; None: values are asked for."""

    @abstractmethod
    def init(self, sent: Arrays | None) -> Any:
        """An accumulator with nothing in it."""

    def admit(self, acc: Any, update: Update) -> None:
        """Refuse an update that does not fit those folded before it; nothing is folded yet.

        Raises:
            BadUpdate: why.
        """

    @abstractmethod
    def fold(self, acc: Any, update: Update, sent: Arrays | None) -> Any:
        """The accumulator with one more update in it.

        Args:
            acc: the accumulator; may be changed in place.
            update: the update, checked and admitted.
            sent: what this client was sent and its model is compared with; None for values.
        """

    @abstractmethod
    def merge(self, acc: Any, later: Any) -> Any:
        """Two accumulators as one; ``later`` holds updates that come after those of ``acc``."""

    @abstractmethod
    def finish(self, acc: Any) -> Arrays | None:
        """The result; None when nothing with a weight was folded."""


class Summing(Aggregator):
    """An aggregator whose accumulator is a weighted sum, which transforms may release before it is divided.

    A subclass says what an update weighs and what becomes of the sum; the sum itself is a `WeightedSum`.

    Attributes:
        exact: are integers of values summed exactly in 64 bits? Else in float64.
        double: are floats of models summed in float64, whatever their dtype?
    """

    exact: ClassVar[bool] = False
    double: ClassVar[bool] = False

    @property
    def plain(self) -> bool:
        """Does the fold do nothing but add, and take every update of a model that fits what was sent?"""
        it = type(self)
        return it.fold is Summing.fold and it.admit is Summing.admit and it.merge is Summing.merge

    @abstractmethod
    def weight(self, stated: float) -> float:
        """What an update is multiplied with whose client states this weight."""

    def weights(self, stated: Sequence[float]) -> Sequence[float]:
        """`weight` of each; a subclass may know a quicker way."""
        return [*map(self.weight, stated)]

    def expects(self, sent: Arrays | None) -> Expected:
        """Whole models, or any values."""
        return Expected(sent=sent.spec if sent is not None else None, shapes="equal" if sent is not None else "free")

    def init(self, sent: Arrays | None) -> WeightedSum:
        """An empty sum."""
        return WeightedSum.empty(sent, exact=self.exact, double=self.double)

    def admit(self, acc: WeightedSum, update: Update) -> None:
        """Values need the entries and shapes of those before them."""
        acc.admit(update)

    def fold(self, acc: WeightedSum, update: Update, sent: Arrays | None) -> WeightedSum:
        """Add weight * update."""
        acc.add(update, sent, self.weight(update.weight))
        return acc

    def fold_rows(self, acc: WeightedSum, rows: Rows, sent: Arrays | None) -> WeightedSum:
        """Add weight * update, for each of some updates of one kind and one spec: the same as folding each in turn."""
        acc.add_rows(rows, sent, self.weights(rows.weights))
        return acc

    def fold_shards(self, acc: WeightedSum, rows: Rows, sent: Arrays | None, size: int) -> WeightedSum:
        """Add small updates in shards of so many: the same as folding each shard on its own, and merging it."""
        acc.add_shards(rows, sent, self.weights(rows.weights), size)
        return acc

    def merge(self, acc: WeightedSum, later: WeightedSum) -> WeightedSum:
        """Add the sums."""
        acc.merge(later)
        return acc


__all__ = ["Aggregator", "Summing"]
