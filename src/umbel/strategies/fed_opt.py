"""FedAdam, FedYogi, FedAdagrad: adaptive optimizers on the server, fed with the mean client update.

Source: Reddi et al., Adaptive Federated Optimization, ICLR 2021, Algorithm 2. https://arxiv.org/abs/2003.00295
"""

from __future__ import annotations

from typing import Any

from umbel import optimize
from umbel.strategies.base import Strategy
from umbel.strategies.fed_avg import fed_avg


def fed_adam(
    *, lr: float = 0.1, beta1: float = 0.9, beta2: float = 0.99, tau: float = 1e-3, **fed_avg_arguments: Any
) -> Strategy:
    """Adam on the server.

    Args:
        lr: the server's learning rate.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        tau: degree of adaptivity; also v_0 = tau^2.
        fed_avg_arguments: as for `fed_avg`.

    Source: Reddi et al., ICLR 2021, Algorithm 2 (FedAdam). https://arxiv.org/abs/2003.00295
    Differs: the mean is weighted by the clients' weights; ``aggregator=umbel.aggregate.mean(uniform=True)`` is
    the paper's.
    """
    optimizer = optimize.adam(lr=lr, beta1=beta1, beta2=beta2, tau=tau)
    return fed_avg(**fed_avg_arguments).with_(name="fed_adam", optimizer=optimizer)


def fed_yogi(
    *, lr: float = 0.1, beta1: float = 0.9, beta2: float = 0.99, tau: float = 1e-3, **fed_avg_arguments: Any
) -> Strategy:
    """Yogi on the server: like Adam, but the second moment grows additively.

    Args:
        lr: the server's learning rate.
        beta1: decay of the first moment.
        beta2: how fast the second moment moves.
        tau: degree of adaptivity; also v_0 = tau^2.
        fed_avg_arguments: as for `fed_avg`.

    Source: Reddi et al., ICLR 2021, Algorithm 2 (FedYogi). https://arxiv.org/abs/2003.00295
    Differs: as `fed_adam`.
    """
    optimizer = optimize.yogi(lr=lr, beta1=beta1, beta2=beta2, tau=tau)
    return fed_avg(**fed_avg_arguments).with_(name="fed_yogi", optimizer=optimizer)


def fed_adagrad(*, lr: float = 0.1, beta1: float = 0.0, tau: float = 1e-3, **fed_avg_arguments: Any) -> Strategy:
    """Adagrad on the server.

    Args:
        lr: the server's learning rate.
        beta1: decay of the first moment; 0: none.
        tau: degree of adaptivity; also v_0 = tau^2.
        fed_avg_arguments: as for `fed_avg`.

    Source: Reddi et al., ICLR 2021, Algorithm 2 (FedAdagrad). https://arxiv.org/abs/2003.00295
    Differs: as `fed_adam`.
    """
    optimizer = optimize.adagrad(lr=lr, beta1=beta1, tau=tau)
    return fed_avg(**fed_avg_arguments).with_(name="fed_adagrad", optimizer=optimizer)


__all__ = ["fed_adagrad", "fed_adam", "fed_yogi"]
