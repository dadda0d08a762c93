"""What a strategy asks local training to add to each gradient, as data.

FedProx, SCAFFOLD, FedDyn and their kin all correct the local gradient by something affine in the
parameters. The strategy holds a `LocalRule`, which travels; on the client it gives a `Correction`,
which an adapter applies (``umbel.torch.local``) or a training loop reads (``ctx.correction``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

from umbel.arguments import number
from umbel.arrays import Arrays


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


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LocalTask:
    """What a local rule knows of one client's training in one round.

    Attributes:
        client: the client's name.
        round: the round, from 1.
        model: what was sent, the anchor of training.
        extra: the named arrays of the broadcast.
        config: settings of this round.
        state: what the rule itself kept at this client, from the last training that was counted.
    """

    client: str
    round: int
    model: Arrays
    extra: Mapping[str, Arrays]
    config: Mapping[str, Any]
    state: Mapping[str, Any]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class After:
    """What a local rule makes of a finished training.

    Attributes:
        state: what it keeps at this client: arrays, numbers, text or bytes by name. Counts if the update does.
        extra: named arrays that go back with the update.
    """

    state: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Arrays] = field(default_factory=dict)


class LocalRule(ABC):
    """How a strategy corrects local training; pure, and made of plain values so that it travels."""

    @abstractmethod
    def correction(self, task: LocalTask) -> Correction:
        """The correction for one client in one round."""

    def after(self, task: LocalTask, delta: Arrays, steps: int | None) -> After:
        """What to keep and to send back once the client has trained: SCAFFOLD's and FedDyn's variates.

        Args:
            task: as for `correction`.
            delta: the change of the model.
            steps: how many local steps made it, if the adapter counted them.
        """
        del delta, steps
        return After(state=task.state)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Proximal(LocalRule):
    """FedProx: pull the parameters back to the model that was sent.

    Source: Li et al., Federated Optimization in Heterogeneous Networks, MLSys 2020, equation 2.
    https://arxiv.org/abs/1812.06127
    """

    mu: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "mu", number(self.mu, "fed_prox(): mu", least=0))

    def correction(self, task: LocalTask) -> Correction:
        """A pull of strength mu, and nothing else."""
        return Correction(pull=self.mu, anchor=task.model)


__all__ = ["After", "Correction", "LocalRule", "LocalTask", "Proximal"]
