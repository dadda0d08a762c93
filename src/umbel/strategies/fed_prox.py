"""FedProx: local training is pulled back to the model that was sent.

Source: Li et al., Federated Optimization in Heterogeneous Networks, MLSys 2020. https://arxiv.org/abs/1812.06127
"""

from __future__ import annotations

from typing import Any

from umbel.correction import Proximal
from umbel.strategies.base import Strategy
from umbel.strategies.fed_avg import fed_avg


def fed_prox(*, mu: float, **fed_avg_arguments: Any) -> Strategy:
    """FedAvg with a proximal term mu/2 * |w - w_sent|^2 in each client's objective.

    The clients apply it: with PyTorch, put the training loop into ``with umbel.torch.local(net, model, ctx):``;
    elsewhere, add ``ctx.correction.pull * (w - model)`` to the gradient. A client that does neither is refused.

    Args:
        mu: strength of the term, >= 0.
        fed_avg_arguments: as for `fed_avg`.

    Source: Li et al., MLSys 2020, Algorithm 2. https://arxiv.org/abs/1812.06127
    Differs: how inexactly a client solves its problem is the client's choice; clients are drawn by ``cohort``.
    """
    return fed_avg(**fed_avg_arguments).with_(name="fed_prox", local=Proximal(mu=mu))


__all__ = ["fed_prox"]
