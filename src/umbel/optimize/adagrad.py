"""FedAdagrad: Adagrad on the server, fed with the mean client update.

Source: Reddi et al., Adaptive Federated Optimization, ICLR 2021, Algorithm 2. https://arxiv.org/abs/2003.00295
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from umbel.arguments import number
from umbel.arrays import Arrays
from umbel.optimize.base import ServerOptimizer


@final
@dataclass(frozen=True, slots=True)
class AdagradState:
    """What Adagrad remembers.

    Attributes:
        m: first moment of the update, shaped like the model; None where beta1 is 0, for then it is the update.
        v: tau^2 and the sum of the squared updates, shaped like the model.
    """

    m: Arrays | None
    v: Arrays


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Adagrad:
    """x += lr * m / (sqrt(v) + tau), where v sums the squares of all updates so far."""

    elementwise: ClassVar[bool] = True

    lr: float = 0.1
    tau: float = 1e-3
    beta1: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "lr", number(self.lr, "adagrad(): lr", above=0))
        object.__setattr__(self, "tau", number(self.tau, "adagrad(): tau", above=0))
        object.__setattr__(self, "beta1", number(self.beta1, "adagrad(): beta1", least=0, below=1))

    def init(self, model: Arrays) -> AdagradState:
        """Begin with m = 0, v = tau^2."""
        return AdagradState(model.zeros() if self.beta1 else None, model.zeros() + self.tau**2)

    def step(self, model: Arrays, delta: Arrays, state: AdagradState) -> tuple[Arrays, AdagradState]:
        """The step."""
        m = delta if state.m is None else self.beta1 * state.m + (1 - self.beta1) * delta
        v = state.v + delta * delta
        moved = model + self.lr * m / (np.sqrt(v) + self.tau)
        return moved, AdagradState(None if state.m is None else m, v)


def adagrad(lr: float = 0.1, *, tau: float = 1e-3, beta1: float = 0.0) -> ServerOptimizer:
    """FedAdagrad: Adagrad fed with the mean client update.

    m = beta1 * m + (1 - beta1) * delta; v = v + delta^2; x += lr * m / (sqrt(v) + tau). It begins with m = 0
    and v = tau^2.

    Args:
        lr: the server's learning rate, > 0.
        tau: degree of adaptivity, > 0.
        beta1: decay of the first moment, 0 <= beta1 < 1. The algorithm has one for all three of its variants; 0,
            which the paper's experiments use here, is plain Adagrad.

    Raises:
        UsageError: an argument that makes no sense.

    Source: Reddi et al., ICLR 2021, Algorithm 2. https://arxiv.org/abs/2003.00295
    Differs: the paper starts v at any value >= tau^2; here it is tau^2.
    """
    return ServerOptimizer(Adagrad(lr=lr, tau=tau, beta1=beta1))


__all__ = ["Adagrad", "AdagradState", "adagrad"]
