"""`Strategy`: sampler, settings, transforms, aggregator, server optimizer and policies as one value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType, UnionType
from typing import Any, Self, final

from umbel import metrics as combiners
from umbel import optimize, sample, schedule
from umbel.aggregate import Aggregator, mean
from umbel.codec import describe, fingerprint
from umbel.correction import LocalRule
from umbel.errors import UsageError
from umbel.optimize import ServerOptimizer
from umbel.policy import Evaluation, RoundPolicy
from umbel.sample import Sampler
from umbel.spec import Entries
from umbel.transforms import Chain, Transform


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Strategy:
    """A federated algorithm as one value; made by factories such as `umbel.fed_avg`.

    A strategy is data: it can be compared, written down and sent. ``with_`` makes changed copies.

    Attributes:
        name: what it is called in histories and errors.
        cohort: who trains.
        config: settings for the clients; schedules in it are resolved each round.
        transforms: what happens to an update on its way.
        aggregator: how updates become one.
        optimizer: the server's step.
        rounds: how rounds open and close.
        evaluate: when the clients evaluate the new model.
        metrics: how the clients' metrics combine, by name; by default the weighted mean.
        share: the entries that travel; the others stay at each client (FedPer, FedBN). None: all.
        local: how local training is corrected.

    Raises:
        ChainError: the transforms make no sense with each other or with the aggregator.
    """

    name: str = "fed_avg"
    cohort: Sampler = field(default_factory=sample.everyone)
    config: Mapping[str, Any] = field(default_factory=dict)
    transforms: Chain = field(default_factory=Chain)
    aggregator: Aggregator = field(default_factory=mean)
    optimizer: ServerOptimizer = field(default_factory=optimize.sgd)
    rounds: RoundPolicy = field(default_factory=RoundPolicy)
    evaluate: Evaluation = field(default_factory=Evaluation)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    share: Entries | None = None
    local: LocalRule | None = None

    def __post_init__(self) -> None:
        _check_type("cohort", self.cohort, Sampler, "umbel.sample.fraction(0.1)")
        _check_type("aggregator", self.aggregator, Aggregator, "umbel.aggregate.mean()")
        _check_type(
            "rounds",
            self.rounds,
            RoundPolicy,
            "umbel.rounds(quorum=0.8); how many there are stands in ServerApp(rounds=)",
        )
        _check_type("evaluate", self.evaluate, Evaluation, "umbel.evaluation(every=5)")
        _check_type("share", self.share or Entries(("*",)), Entries, 'umbel.entries("*", but="*.bn*")')
        _check_type("metrics", self.metrics, Mapping, '{"loss": umbel.metrics.mean()}')
        if self.local is not None:
            _check_type("local", self.local, LocalRule, "umbel.fed_prox(mu=0.1).local")
        _check_type("transforms", self.transforms, Chain | Sequence, "[umbel.transforms.clip(1.0)]")
        if not isinstance(self.transforms, Chain):
            object.__setattr__(self, "transforms", Chain(tuple(self.transforms)))
        schedule.resolve(self.config, 1)
        object.__setattr__(self, "optimizer", optimize.as_optimizer(self.optimizer))
        object.__setattr__(self, "metrics", MappingProxyType(combiners.as_rules(self.metrics)))
        object.__setattr__(self, "config", MappingProxyType(dict(self.config)))
        self.transforms.check_order(self.aggregator)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Strategy) and describe(self) == describe(other)

    def __hash__(self) -> int:
        return hash(fingerprint(self))

    def with_(self, *transforms: Transform, **changes: Any) -> Self:
        """A copy with more transforms at the end of the chain, or with other fields.

        Raises:
            ChainError: the chain makes no sense.
            UsageError: a field that does not exist.
        """
        known = {f.name for f in fields(self)}
        unknown = sorted(changes.keys() - known)
        if unknown:
            raise UsageError(f"a strategy has no {unknown[0]!r}", advice=f"it has {', '.join(sorted(known))}")
        if transforms:
            chain = changes.get("transforms", self.transforms)
            changes["transforms"] = Chain((*chain.steps, *transforms))
        return replace(self, **changes)


def _check_type(name: str, value: Any, kind: type | UnionType, example: str) -> None:
    if not isinstance(value, kind):
        raise UsageError(f"{name} is a {type(value).__name__} ({value!r})", advice=f"give for example {example}")


__all__ = ["Strategy"]
