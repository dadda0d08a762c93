"""What a strategy asks local training to add to each gradient, as data.

FedProx, SCAFFOLD, FedDyn and their kin all correct the local gradient by something affine in the
parameters. The strategy holds a `LocalRule`, which travels; on the client it gives a `Correction`,
which an adapter applies (``umbel.torch.local``) or a training loop reads (``ctx.correction``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from umbel.arrays import Arrays
from umbel.errors import UsageError


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """grad += pull * (w - anchor) + offset, for each trained entry.

    Equivalently, loss += pull / 2 * |w - anchor|^2 + <offset, w>.

    Attributes:
        pull: strength of the pull back to the anchor.
        anchor: where training started: the model that was sent.
        offset: what is added to the gradient as it is, named like the model's trained entries; or None.
    """

    pull: float
    anchor: Arrays
    offset: Arrays | None = None


class LocalRule(ABC):
    """How a strategy corrects local training; pure, and made of plain values so that it travels."""

    @abstractmethod
    def correction(self, model: Arrays, extra: Mapping[str, Arrays], state: Mapping[str, Any]) -> Correction:
        """The correction for one client in one round.

        Args:
            model: what was sent, the anchor of training.
            extra: the named arrays of the broadcast.
            state: the client's state as of the last committed round.
        """


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Proximal(LocalRule):
    """FedProx: pull the parameters back to the model that was sent.

    Source: Li et al., Federated Optimization in Heterogeneous Networks, MLSys 2020, equation 2.
    https://arxiv.org/abs/1812.06127
    """

    mu: float

    def __post_init__(self) -> None:
        if not 0 <= self.mu < float("inf"):
            raise UsageError(f"mu is {self.mu}", advice="FedProx needs a finite mu >= 0; 0.01 is a common start")

    def correction(self, model: Arrays, extra: Mapping[str, Arrays], state: Mapping[str, Any]) -> Correction:  # noqa: ARG002
        """A pull of strength mu, and nothing else."""
        return Correction(pull=self.mu, anchor=model)


__all__ = ["Correction", "LocalRule", "Proximal"]
