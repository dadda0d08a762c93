"""The reduce, as a monoid: fold updates one at a time, merge partial folds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from umbel.aggregate.expected import Expected
from umbel.arrays import Arrays
from umbel.update import Update


class Aggregator(ABC):
    """How the updates of a cohort become one.

    ``merge(fold(init, a), fold(init, b))`` equals ``fold(fold(init, a), b)`` up to rounding; the order is
    the cohort's, and need not be exchangeable. Who folds what therefore does not matter, and memory does
    not grow with the cohort. An accumulator belongs to the fold: ``fold`` and ``merge`` may change their
    first argument in place and return it.

    Attributes:
        result: the name of the result: ``got.mean`` for "mean".
        summing: is the accumulator a sum that a transform may release before it is divided?
        uniform: does every client count the same, whatever weight it states?
    """

    result: ClassVar[str] = "value"
    summing: ClassVar[bool] = False

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
    def fold(self, acc: Any, update: Update) -> Any:
        """The accumulator with one more update in it. The update was checked and admitted."""

    @abstractmethod
    def merge(self, acc: Any, later: Any) -> Any:
        """Two accumulators as one; ``later`` holds updates that come after those of ``acc``."""

    @abstractmethod
    def finish(self, acc: Any) -> Arrays | None:
        """The result; None when nothing with a weight was folded."""


__all__ = ["Aggregator"]
