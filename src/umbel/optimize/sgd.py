"""Gradient descent on the server: a step along the mean client update.

Source: Reddi et al., Adaptive Federated Optimization, ICLR 2021, Algorithm 1 with SGD as the server's
optimizer; with lr = 1 it is McMahan et al., AISTATS 2017, Algorithm 1. https://arxiv.org/abs/2003.00295
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from umbel.arguments import number
from umbel.arrays import Arrays
from umbel.optimize.base import ServerOptimizer


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Sgd:
    """x += lr * delta."""

    elementwise: ClassVar[bool] = True

    lr: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "lr", number(self.lr, "sgd(): lr", above=0))

    def init(self, model: Arrays) -> None:
        """There is no state."""

    def step(self, model: Arrays, delta: Arrays, state: None) -> tuple[Arrays, None]:
        """The step."""
        return model + (delta if self.lr == 1 else self.lr * delta), state


def sgd(lr: float = 1.0) -> ServerOptimizer:
    """Gradient descent: x += lr * delta.

    Args:
        lr: the server's learning rate, > 0; 1 takes the clients' mean.

    Raises:
        UsageError: lr is not a finite number > 0.

    Source: Reddi et al., ICLR 2021, Algorithm 1. https://arxiv.org/abs/2003.00295
    """
    return ServerOptimizer(Sgd(lr=lr))


__all__ = ["Sgd", "sgd"]
