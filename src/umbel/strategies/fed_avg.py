"""FedAvg, and what differs from it in the server's step alone.

Source: McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data, AISTATS 2017,
Algorithm 1. https://arxiv.org/abs/1602.05629
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umbel import optimize
from umbel.aggregate import Aggregator, mean
from umbel.policy import Evaluation, RoundPolicy
from umbel.sample import Sampler, everyone
from umbel.spec import Entries
from umbel.strategies.base import Strategy


def fed_avg(
    *,
    cohort: Sampler | None = None,
    config: Mapping[str, Any] | None = None,
    rounds: RoundPolicy | None = None,
    evaluate: Evaluation | None = None,
    metrics: Mapping[str, Any] | None = None,
    share: Entries | None = None,
    aggregator: Aggregator | None = None,
    optimizer: Any = None,
) -> Strategy:
    """Federated averaging: the new model is the weighted mean of the clients' models.

    Args:
        cohort: who trains, e.g. ``umbel.sample.fraction(0.1)``; by default everyone.
        config: settings for the clients, as ``ctx.config``; schedules such as
            ``umbel.schedule.cosine(0.1, rounds=20)`` are resolved on the server each round.
        rounds: quorum, deadline, spares: ``umbel.rounds(...)``.
        evaluate: when the clients evaluate the new model: ``umbel.evaluation(...)``; by default after each round.
        metrics: how the clients' metrics combine, by name; by default the weighted mean.
        share: the entries that travel, e.g. ``umbel.entries("*", but="*.bn*")`` (FedBN: Li et al., ICLR 2021,
            https://arxiv.org/abs/2102.07623) or all but the head (FedPer: Arivazhagan et al. 2019,
            https://arxiv.org/abs/1912.00818). The others stay at each client.
        aggregator: how updates become one; by default the mean weighted by ``Update(weight=)``.
        optimizer: the server's step; by default model + mean update, which is the mean of the clients' models
            (16-bit models: kept as a float32 master on the server, so that small updates are not rounded away).

    Source: McMahan et al., AISTATS 2017, Algorithm 1. https://arxiv.org/abs/1602.05629
    Differs: none with the defaults, up to rounding.
    """
    return Strategy(
        name="fed_avg",
        cohort=everyone() if cohort is None else cohort,
        config=config or {},
        rounds=RoundPolicy() if rounds is None else rounds,
        evaluate=Evaluation() if evaluate is None else evaluate,
        metrics=metrics or {},
        share=share,
        aggregator=mean() if aggregator is None else aggregator,
        optimizer=optimize.sgd() if optimizer is None else optimizer,
    )


def fed_avgm(*, lr: float = 1.0, momentum: float = 0.9, nesterov: bool = False, **fed_avg_arguments: Any) -> Strategy:
    """FedAvg with momentum on the server.

    Args:
        lr: the server's learning rate.
        momentum: how much of the last step is kept, 0 <= momentum < 1.
        nesterov: look ahead by one step.
        fed_avg_arguments: as for `fed_avg`.

    Source: Hsu, Qi, Brown, Measuring the Effects of Non-Identical Data Distribution for Federated Visual
    Classification, 2019, section 4.3. https://arxiv.org/abs/1909.06335
    Differs: the paper has lr = 1 on the server; ``nesterov`` is ours.
    """
    optimizer = optimize.momentum(lr=lr, momentum=momentum, nesterov=nesterov)
    return fed_avg(**fed_avg_arguments).with_(name="fed_avgm", optimizer=optimizer)


__all__ = ["fed_avg", "fed_avgm"]
