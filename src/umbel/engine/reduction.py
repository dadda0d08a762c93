"""The defined reduction: who is folded with whom does not depend on who computes it.

Places are grouped in shards of 64; inside a shard updates are folded from left to right, and the shards are
merged from left to right. Rounding therefore depends on the cohort alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

from umbel.aggregate import Aggregator, mean
from umbel.engine.question import Question
from umbel.update import Update

SHARD = 64


@final
@dataclass(slots=True)
class Reduced:
    """What was folded.

    Attributes:
        acc: the accumulator of the updates.
        extra: accumulators of their extra arrays, by name.
        names: who is in it, in order of places.
        rows: (weight, metrics) of each.
    """

    acc: Any = None
    extra: dict[str, Any] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    rows: list[tuple[float, Mapping[str, Any]]] = field(default_factory=list)


@final
class Reduction:
    """Folds the updates of one exchange, in order of places."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._shard: int | None = None
        self._open = Reduced()  # accumulators of the shard that is being folded
        self._merged = Reduced()  # those of the shards before it, and all rows

    def fold(self, client: str, place: int, update: Update) -> None:
        """Fold one client's update. Places come in rising order.

        Raises:
            BadUpdate: it does not fit the others; nothing of it was folded.
        """
        if place // SHARD != self._shard:
            self._merge_shard()
            self._shard = place // SHARD
        parts = self._parts(update)
        for name, aggregator, part in parts:
            aggregator.admit(self._acc(name, aggregator), part)
        for name, aggregator, part in parts:
            self._open.extra[name] = aggregator.fold(self._acc(name, aggregator), part)
        self.note(client, update.weight, update.metrics)

    def note(self, client: str, weight: float, metrics: Mapping[str, Any]) -> None:
        """Keep a client's metrics."""
        self._merged.names.append(client)
        self._merged.rows.append((weight, metrics))

    def finish(self) -> Reduced:
        """The folded whole."""
        self._merge_shard()
        self._merged.acc = self._merged.extra.pop("", None)
        if self._merged.acc is None and self._question.aggregator is not None:
            self._merged.acc = self._question.aggregator.init(self._question.sent)
        return self._merged

    def _parts(self, update: Update) -> list[tuple[str, Aggregator, Update]]:
        assert self._question.aggregator is not None
        parts = [("", self._question.aggregator, update)]
        for name, arrays in update.extra.items():
            parts.append((name, self._aggregator(name), update.replace(arrays, kind="value")))
        return parts

    def _aggregator(self, name: str) -> Aggregator:
        aggregator = self._question.extra_aggregators.get(name) if name else self._question.aggregator
        return aggregator if aggregator is not None else mean()

    def _acc(self, name: str, aggregator: Aggregator) -> Any:
        if name not in self._open.extra:
            self._open.extra[name] = aggregator.init(self._question.sent if not name else None)
        return self._open.extra[name]

    def _merge_shard(self) -> None:
        for name, acc in self._open.extra.items():
            before = self._merged.extra.get(name)
            if before is not None:
                acc = self._aggregator(name).merge(before, acc)  # noqa: PLW2901
            self._merged.extra[name] = acc
        self._open = Reduced()


__all__ = ["SHARD", "Reduced", "Reduction"]
