"""FedAdam: Adam on the server, fed with the mean client update.

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
class AdamState:
    """What Adam remembers.

    Attributes:
        m: first moment of the update, shaped like the model.
        v: second moment of the update, shaped like the model.
    """

    m: Arrays
    v: Arrays


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Adam:
    """x += lr * m / (sqrt(v) + tau), without bias correction, as in the paper."""

    elementwise: ClassVar[bool] = True

    lr: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        object.__setattr__(self, "lr", number(self.lr, "adam(): lr", above=0))
        object.__setattr__(self, "beta1", number(self.beta1, "adam(): beta1", least=0, below=1))
        object.__setattr__(self, "beta2", number(self.beta2, "adam(): beta2", least=0, below=1))
        object.__setattr__(self, "tau", number(self.tau, "adam(): tau", above=0))

    def init(self, model: Arrays) -> AdamState:
        """Begin with m = 0, v = tau^2."""
        return AdamState(model.zeros(), model.zeros() + self.tau**2)

    def step(self, model: Arrays, delta: Arrays, state: AdamState) -> tuple[Arrays, AdamState]:
        """The step."""
        m = self.beta1 * state.m + (1 - self.beta1) * delta
        v = self.beta2 * state.v + (1 - self.beta2) * (delta * delta)
        return model + self.lr * m / (np.sqrt(v) + self.tau), AdamState(m, v)


def adam(lr: float = 0.1, *, beta1: float = 0.9, beta2: float = 0.99, tau: float = 1e-3) -> ServerOptimizer:
    """FedAdam: Adam fed with the mean client update, without bias correction.

    m = beta1 * m + (1 - beta1) * delta; v = beta2 * v + (1 - beta2) * delta^2; x += lr * m / (sqrt(v) + tau).
    It begins with m = 0 and v = tau^2.

    Args:
        lr: the server's learning rate, > 0.
        beta1: decay of the first moment, 0 <= beta1 < 1.
        beta2: decay of the second moment, 0 <= beta2 < 1.
        tau: degree of adaptivity, > 0: updates far below it are not scaled up.

    Raises:
        UsageError: an argument that makes no sense.

    Source: Reddi et al., ICLR 2021, Algorithm 2. https://arxiv.org/abs/2003.00295
    Differs: the paper starts v at any value >= tau^2; here it is tau^2.
    """
    return ServerOptimizer(Adam(lr=lr, beta1=beta1, beta2=beta2, tau=tau))


__all__ = ["Adam", "AdamState", "adam"]
