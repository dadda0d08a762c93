"""FedYogi: Yogi on the server, fed with the mean client update.

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
class YogiState:
    """What Yogi remembers.

    Attributes:
        m: first moment of the update, shaped like the model.
        v: second moment of the update, shaped like the model.
    """

    m: Arrays
    v: Arrays


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Yogi:
    """Like Adam, but the second moment moves towards delta^2 by steps of the size of delta^2."""

    elementwise: ClassVar[bool] = True

    lr: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        object.__setattr__(self, "lr", number(self.lr, "yogi(): lr", above=0))
        object.__setattr__(self, "beta1", number(self.beta1, "yogi(): beta1", least=0, below=1))
        object.__setattr__(self, "beta2", number(self.beta2, "yogi(): beta2", least=0, below=1))
        object.__setattr__(self, "tau", number(self.tau, "yogi(): tau", above=0))

    def init(self, model: Arrays) -> YogiState:
        """Begin with m = 0, v = tau^2."""
        return YogiState(model.zeros(), model.zeros() + self.tau**2)

    def step(self, model: Arrays, delta: Arrays, state: YogiState) -> tuple[Arrays, YogiState]:
        """The step."""
        m = self.beta1 * state.m + (1 - self.beta1) * delta
        square = delta * delta
        v = state.v - (1 - self.beta2) * square * np.sign(state.v - square)
        return model + self.lr * m / (np.sqrt(v) + self.tau), YogiState(m, v)


def yogi(lr: float = 0.1, *, beta1: float = 0.9, beta2: float = 0.99, tau: float = 1e-3) -> ServerOptimizer:
    """FedYogi: Yogi fed with the mean client update, without bias correction.

    m = beta1 * m + (1 - beta1) * delta; v = v - (1 - beta2) * delta^2 * sign(v - delta^2), where sign(0) = 0;
    x += lr * m / (sqrt(v) + tau). It begins with m = 0 and v = tau^2. v is never negative: it only shrinks
    while it is larger than delta^2, and by less than delta^2.

    Args:
        lr: the server's learning rate, > 0.
        beta1: decay of the first moment, 0 <= beta1 < 1.
        beta2: 1 - beta2 is how far the second moment moves, 0 <= beta2 < 1.
        tau: degree of adaptivity, > 0: updates far below it are not scaled up.

    Raises:
        UsageError: an argument that makes no sense.

    Source: Reddi et al., ICLR 2021, Algorithm 2. https://arxiv.org/abs/2003.00295
    Differs: the paper starts v at any value >= tau^2; here it is tau^2.
    """
    return ServerOptimizer(Yogi(lr=lr, beta1=beta1, beta2=beta2, tau=tau))


__all__ = ["Yogi", "YogiState", "yogi"]
