"""A user's own function as a combiner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from umbel.errors import UsageError
from umbel.metrics.base import Combiner, Result, Values, result
from umbel.metrics.each import Each


@final
@dataclass(frozen=True, slots=True)
class Function(Combiner):
    """A user's own function; see `of`."""

    function: Callable[[Values, Values], Any]

    def __post_init__(self) -> None:
        from umbel import metrics  # only now: it imports this module

        if isinstance(self.function, type) or not callable(self.function):
            raise UsageError(
                f"{self.function!r} is no function", advice="give a function f(values, weights) of NumPy arrays"
            )
        ours = next((name for name in metrics.__all__ if getattr(metrics, name) is self.function), None)
        if ours is not None:
            raise UsageError(f"umbel.metrics.{ours} was not called", advice=f"write umbel.metrics.{ours}(...)")

    def combine(self, name: str, values: Values, weights: Values) -> Mapping[str, Result]:
        """What the function returns, under the metric's name or names below it."""
        try:
            returned = self.function(values.copy(), weights.copy())
        except Exception as error:
            raise UsageError(
                f"metric {name!r}: {self.function!r} raised {type(error).__name__}: {error}",
                advice="mend the function: it gets the clients' values and weights, two NumPy arrays",
            ) from error
        if isinstance(returned, Mapping):
            return {f"{name}.{key}": self._numbers(name, value) for key, value in returned.items()}
        return {name: self._numbers(name, returned)}

    def _numbers(self, name: str, value: Any) -> Result:
        array: npt.NDArray[Any] = np.asarray(value)
        if array.dtype.kind not in "biuf":
            raise UsageError(
                f"metric {name!r}: {self.function!r} returned {value!r}",
                advice="return a number, an array of numbers, or a mapping of names to these",
            )
        return result(array)


def of(function: Callable[[Values, Values], Any]) -> Combiner:
    """A combiner from a function of one's own.

    Args:
        function: called as f(values, weights) with float64 arrays of shape (n,) or (n, *shape), and (n,), in
            cohort order. A number or an array that it returns gets the metric's name; of a mapping, "p" of the
            metric "loss" becomes "loss.p".

    Raises:
        UsageError: it is no function.

    Example:
        >>> import numpy as np
        >>> dict(of(lambda values, weights: values.max() - values.min()).combine("loss", np.arange(3.0), np.ones(3)))
        {'loss': 2.0}
    """
    return Function(function)


def as_combiner(rule: Any) -> Combiner:
    """What a strategy's ``metrics=`` may hold, as a combiner.

    Args:
        rule: a combiner, a function f(values, weights), or a tuple or list of these: all their results.

    Raises:
        UsageError: it is none of these.
    """
    if isinstance(rule, Combiner):
        return rule
    if isinstance(rule, tuple | list):
        return Each(tuple(as_combiner(each) for each in rule))
    if callable(rule):
        return Function(rule)
    raise UsageError(
        f"{rule!r} does not say how a metric is combined",
        advice="take umbel.metrics.mean(), a function f(values, weights), or a tuple of these",
    )


__all__ = ["Function", "as_combiner", "of"]
