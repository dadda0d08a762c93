"""What one exchange asks, and what came out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, final

from umbel.aggregate import Aggregator, Expected
from umbel.arrays import Arrays
from umbel.correction import LocalRule
from umbel.errors import BadUpdate, Failure, UsageError
from umbel.transforms import Chain
from umbel.update import Update

Kind = Literal["train", "evaluate", "query"]
EVALUATED = "metrics"
"""The result of an evaluation, which has nothing to aggregate; see `Answer`."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Question:
    """What every client of a cohort is asked in one exchange.

    Attributes:
        kind: train, evaluate or query.
        name: the query's name; else the kind.
        seed: the run's seed.
        round: the round, from 1.
        call, attempt: the n-th exchange of the round, from 1, and how often it was begun anew, from 0.
        sequence: the number of the exchange in its run, from 1; versions of client state are named by it.
        model: what is sent, entries of role "local" with their first values; None for a query without one.
        extra: more named arrays.
        config: settings of this round; plain values.
        aggregator: how the answers become one; None for an evaluation, which has metrics only. The server's.
        extra_aggregators: the same for the updates' extra arrays, by name.
        expected: what is accepted in answer; None for an evaluation.
        extra_expected: the same for the updates' extra arrays, by name; others are refused.
        chain: what happens to each update on its way.
        plans: what the steps of the chain send along this round.
        rule: how local training is corrected, or None.
    """

    kind: Kind
    name: str
    seed: int
    round: int
    call: int
    attempt: int = 0
    sequence: int = 0
    model: Arrays | None
    extra: Mapping[str, Arrays] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    aggregator: Aggregator | None = None
    extra_aggregators: Mapping[str, Aggregator] = field(default_factory=dict)
    expected: Expected | None = None
    extra_expected: Mapping[str, Expected] = field(default_factory=dict)
    chain: Chain = field(default_factory=Chain)
    plans: tuple[Arrays | None, ...] = ()
    rule: LocalRule | None = None

    @property
    def sent(self) -> Arrays | None:
        """The model that updates are made of; None when values are asked for."""
        return self.model if self.kind == "train" else None

    def check(self, update: Update) -> None:
        """Refuse an answer that does not fit.

        Raises:
            BadUpdate: names the entry.
        """
        assert self.expected is not None
        self.expected.check(update)
        for name, arrays in update.extra.items():
            if name not in self.extra_expected:
                raise BadUpdate(
                    f"nobody asked for extra={name!r}",
                    advice=f"name its aggregator: fed.train(..., aggregators={{{name!r}: umbel.aggregate.mean()}})",
                )
            self.extra_expected[name].check(update.replace(arrays, kind="value"))

    @property
    def label(self) -> str:
        """The question in words: "train", "evaluate" or "query 'histogram'"."""
        return f"query {self.name!r}" if self.kind == "query" else self.kind


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came out of an exchange.

    The aggregate is ``value``, and also has the name of the operation: ``mean``, ``sum`` or ``concat``.

    Attributes:
        value: the aggregate: of models, the aggregated update; None when values were asked for and none came.
        result: the name of the operation that made it; `EVALUATED` where there is none.
        extra: the aggregates of the updates' extra arrays.
        metrics: the clients' metrics, combined.
        clients: who was counted, in order.
        rows: each counted client's own metrics, in the same order.
        aggregated: was there anything to aggregate, or did a transform release a sum of nobody?
        cohort: how many were asked.
        failures: who failed, and why.
        met: was the quorum reached? If not, nobody was counted.
    """

    value: Arrays | None
    result: str = "value"
    extra: Mapping[str, Arrays] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    clients: tuple[str, ...] = ()
    rows: tuple[Mapping[str, Any], ...] = ()
    cohort: int = 0
    failures: tuple[Failure, ...] = ()
    met: bool = True
    aggregated: bool = False

    @property
    def mean(self) -> Arrays:
        """The mean of the clients' updates; zeros when nobody was counted."""
        return self._named("mean")

    @property
    def sum(self) -> Arrays:
        """The sum of the clients' values."""
        return self._named("sum")

    @property
    def concat(self) -> Arrays:
        """The clients' values, joined end to end."""
        return self._named("concat")

    def _named(self, result: str) -> Arrays:
        if self.result != result:
            raise UsageError(f"this exchange was aggregated to a {self.result}, not a {result}")
        if self.value is None:
            raise UsageError("no client was counted, so there is no aggregate", advice="look at .clients first")
        return self.value


__all__ = ["EVALUATED", "Answer", "Kind", "Question"]
