"""FedAvgM: momentum on the server.

Source: Hsu et al., Measuring the Effects of Non-Identical Data Distribution for Federated Visual
Classification, 2019, section 4.3. https://arxiv.org/abs/1909.06335
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from umbel.arguments import number
from umbel.arrays import Arrays
from umbel.errors import UsageError
from umbel.optimize.base import ServerOptimizer


@final
@dataclass(frozen=True, slots=True)
class MomentumState:
    """What momentum remembers.

    Attributes:
        v: the decaying sum of updates, shaped like the model.
    """

    v: Arrays


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Momentum:
    """v = momentum * v + delta; x += lr * v."""

    elementwise: ClassVar[bool] = True

    lr: float = 1.0
    momentum: float = 0.9
    nesterov: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "lr", number(self.lr, "momentum(): lr", above=0))
        object.__setattr__(self, "momentum", number(self.momentum, "momentum(): momentum", least=0, below=1))
        if not isinstance(self.nesterov, bool):
            raise UsageError(f"momentum(): nesterov is {self.nesterov!r}", advice="give True or False")

    def init(self, model: Arrays) -> MomentumState:
        """No momentum yet."""
        return MomentumState(model.zeros())

    def step(self, model: Arrays, delta: Arrays, state: MomentumState) -> tuple[Arrays, MomentumState]:
        """The step."""
        v = self.momentum * state.v + delta
        along = self.momentum * v + delta if self.nesterov else v
        return model + self.lr * along, MomentumState(v)


def momentum(lr: float = 1.0, *, momentum: float = 0.9, nesterov: bool = False) -> ServerOptimizer:
    """FedAvgM: v = momentum * v + delta; x += lr * v.

    Args:
        lr: the server's learning rate, > 0.
        momentum: 0 <= momentum < 1; at the plateau a constant update counts 1 / (1 - momentum) times.
        nesterov: step along momentum * v + delta instead of v.

    Raises:
        UsageError: an argument that makes no sense.

    Source: Hsu et al., 2019, section 4.3. https://arxiv.org/abs/1909.06335
    Nesterov's variant: Sutskever et al., ICML 2013, in the form in which the model is where the gradient is taken.
    Differs: the paper has no server learning rate (lr = 1).
    """
    return ServerOptimizer(Momentum(lr=lr, momentum=momentum, nesterov=nesterov))


__all__ = ["Momentum", "MomentumState", "momentum"]
