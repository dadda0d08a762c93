"""The aggregate of q-FedAvg: clients with a higher loss count more."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from umbel.aggregate.base import Aggregator
from umbel.aggregate.expected import Expected
from umbel.aggregate.weighted_sum import WeightedSum, divided, sum_spec
from umbel.arguments import number
from umbel.arrays import Arrays
from umbel.errors import BadUpdate, UsageError
from umbel.spec import Spec
from umbel.update import Update

_LEAST = 1e-10  # F^(q-1) has no value at 0 where q < 1
_MOST = 300.0  # of |q log F|: float64 holds e^700, and the sum multiplies


@final
@dataclass(slots=True)
class FairSum:
    """Sum of F^q * (w_k - w), and of the step's denominators; in float64, since F^q may be huge or tiny."""

    delta: WeightedSum
    step: Spec
    denominator: float = 0.0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class QFair(Aggregator):
    """Reweighs updates by the client's loss; see `q_fair`."""

    q: float
    lipschitz: float
    loss: str = "loss"
    result: ClassVar[str] = "mean"

    def __post_init__(self) -> None:
        object.__setattr__(self, "q", number(self.q, "q_fair(): q", least=0))
        object.__setattr__(self, "lipschitz", number(self.lipschitz, "q_fair(): 1 / lr", above=0))

    def expects(self, sent: Arrays | None) -> Expected:
        """Whole models."""
        if sent is None:
            raise UsageError("q-FedAvg aggregates models, not values")
        return Expected(sent=sent.spec)

    def init(self, sent: Arrays | None) -> FairSum:
        """Empty sums."""
        assert sent is not None
        return FairSum(WeightedSum.empty(sent, double=True), sum_spec(sent.spec, model=True))

    def admit(self, acc: FairSum, update: Update) -> None:  # noqa: ARG002
        """The update needs its loss."""
        loss = update.metrics.get(self.loss)
        if not isinstance(loss, float) or loss < 0:
            raise BadUpdate(
                f"q-FedAvg needs the metric {self.loss!r}, a loss >= 0, and got {loss!r}",
                advice=f"return metrics={{{self.loss!r}: ...}}: the loss of the model that was sent, before training",
            )
        if abs(self.q * math.log(max(loss, _LEAST))) > _MOST:
            raise BadUpdate(
                f"its loss {loss!r} to the power of q={self.q} is out of range",
                advice="return the mean loss of an example, or choose a smaller q",
            )

    def fold(self, acc: FairSum, update: Update, sent: Arrays | None) -> FairSum:
        """Add F^q * L * (w_k - w) and h_k = q F^(q-1) |L (w_k - w)|^2 + L F^q."""
        loss = max(float(update.metrics[self.loss]), _LEAST)
        alone = WeightedSum.empty(sent, double=True)
        alone.add(update, sent, 1.0)
        assert alone.total is not None
        moved = self.lipschitz * alone.total.norm()
        acc.denominator += self.q * loss ** (self.q - 1) * moved**2 + self.lipschitz * loss**self.q
        acc.delta.add(update, sent, self.lipschitz * loss**self.q)
        return acc

    def merge(self, acc: FairSum, later: FairSum) -> FairSum:
        """Add the sums."""
        acc.delta.merge(later.delta)
        acc.denominator += later.denominator
        return acc

    def finish(self, acc: FairSum) -> Arrays | None:
        """The step: sum of the reweighed updates over the sum of the h_k."""
        if acc.delta.total is None or not acc.denominator > 0:
            return None
        step = divided(acc.delta.total, acc.denominator)
        return Arrays.build(acc.step, lambda name, out: np.copyto(out, step[name], casting="same_kind"))


def q_fair(*, q: float, lr: float, loss: str = "loss") -> Aggregator:
    """Reweigh the clients' updates by their loss to the power of q.

    Args:
        q: 0 gives the uniform mean; the larger, the more the clients with a high loss count.
        lr: the clients' learning rate; its inverse stands for the Lipschitz constant L.
        loss: the metric that holds the loss of the model that was sent, before training.

    Raises:
        UsageError: q or lr makes no sense.

    Source: Li et al., Fair Resource Allocation in Federated Learning, ICLR 2020, Algorithm 2.
    https://arxiv.org/abs/1905.10497
    Differs: the norm is over trained entries only; a loss below 1e-10 counts as 1e-10, where
    the authors' code adds 1e-10 to each.
    """
    return QFair(q=q, lipschitz=1 / number(lr, "q_fair(): lr", above=0), loss=loss)


__all__ = ["QFair", "q_fair"]
