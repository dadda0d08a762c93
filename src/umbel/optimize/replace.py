"""The mean of the clients' models becomes the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from umbel.arrays import Arrays
from umbel.optimize.base import ServerOptimizer


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Replace:
    """x += delta, where x is the model that was sent, exactly as it was sent."""

    elementwise: ClassVar[bool] = True
    keeps_master: ClassVar[bool] = False

    def init(self, model: Arrays) -> None:
        """There is no state."""

    def step(self, model: Arrays, delta: Arrays, state: None) -> tuple[Arrays, None]:
        """The step."""
        return model + delta, state


def replace() -> ServerOptimizer:
    """The mean of the clients' models becomes the model; nothing is remembered.

    The mean reaches the server as sent + mean(w_k - sent), and that is the model, rounded once. For float32 and
    float64 this is ``sgd(lr=1)``, bit for bit. For 16-bit models it is not: ``sgd`` adds the update to a float32
    master, so what the rounding of the model cut off is still there in the next round and small updates add up;
    here the sum starts from the rounded model that the clients were sent, so the result is their mean and has no
    memory of earlier rounds.

    Source: McMahan et al., AISTATS 2017, Algorithm 1. https://arxiv.org/abs/1602.05629
    Differs: a mean of differences, not of models; where a client moves a parameter by many orders of magnitude,
    the float32 rounding of the difference shows.
    """
    return ServerOptimizer(Replace())


__all__ = ["Replace", "replace"]
