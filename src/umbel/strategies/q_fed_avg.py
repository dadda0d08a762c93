"""q-FedAvg: a fairer federated average, in which clients with a higher loss count more.

Source: Li et al., Fair Resource Allocation in Federated Learning, ICLR 2020. https://arxiv.org/abs/1905.10497
"""

from __future__ import annotations

from typing import Any

from umbel.aggregate import q_fair
from umbel.strategies.base import Strategy
from umbel.strategies.fed_avg import fed_avg


def q_fed_avg(*, q: float = 0.2, lr: float = 0.1, loss: str = "loss", **fed_avg_arguments: Any) -> Strategy:
    """Reweigh the clients' updates by their loss.

    Each client returns the loss of the model that was sent, before training, as the metric ``loss``.

    Args:
        q: 0 gives uniform weights; the larger, the fairer.
        lr: the clients' learning rate; its inverse stands for the Lipschitz constant.
        loss: the name of the metric.
        fed_avg_arguments: as for `fed_avg`.

    Source: Li et al., ICLR 2020, Algorithm 2. https://arxiv.org/abs/1905.10497
    Differs: see `umbel.aggregate.q_fair`.
    """
    return fed_avg(**fed_avg_arguments).with_(name="q_fed_avg", aggregator=q_fair(q=q, lr=lr, loss=loss))


__all__ = ["q_fed_avg"]
