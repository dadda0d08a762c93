"""One metric combined in several ways."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from umbel.errors import UsageError
from umbel.metrics.base import Combiner, Result, Values


@final
@dataclass(frozen=True, slots=True)
class Each(Combiner):
    """Every result of several combiners; a tuple of them in a strategy means this."""

    combiners: tuple[Combiner, ...]

    def __post_init__(self) -> None:
        if not self.combiners:
            raise UsageError("a metric has an empty tuple of combiners", advice="give one: (metrics.mean(),)")
        wrong = next((c for c in self.combiners if not isinstance(c, Combiner)), None)
        if wrong is not None:
            raise UsageError(f"{wrong!r} is no combiner", advice="take umbel.metrics.mean(), or umbel.metrics.of(f)")
        object.__setattr__(self, "combiners", tuple(self.combiners))
        _refuse_doubles(Counter(key for c in self.combiners for key in c.names("metric")))

    def names(self, name: str) -> tuple[str, ...]:
        """The names of all; () if one does not know its own."""
        each = [c.names(name) for c in self.combiners]
        return tuple(key for names in each for key in names) if all(each) else ()

    def combine(self, name: str, values: Values, weights: Values) -> Mapping[str, Result]:
        """The results of all."""
        each = [c.combine(name, values, weights) for c in self.combiners]
        _refuse_doubles(Counter(key for results in each for key in results))
        return {key: value for results in each for key, value in results.items()}


def _refuse_doubles(keys: Counter[str]) -> None:
    twice = next((key for key, count in keys.items() if count > 1), None)
    if twice is not None:
        raise UsageError(
            f"two combiners of one metric both give {twice!r}",
            advice="leave one out, or wrap a function that returns a mapping: umbel.metrics.of(f)",
        )


__all__ = ["Each"]
