"""A module that computes with parameters from outside: those of one client, or of many at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor

from umbel.torch.replica import Loss, Replica


@final
class Batched:
    """A replica in whose place of parameters others are put for a call.

    `torch.func.vmap` runs the module on all clients at once, and one backward pass through it gives each its own
    gradient, since no client's loss depends on another's parameters. (Not ``torch.func.grad``: its first use imports
    ``torch._dynamo``.)

    Args:
        replica: the module; nobody else uses it.
        loss: of a batch.
    """

    def __init__(self, replica: Replica, loss: Loss) -> None:
        self.replica, self._loss = replica, loss
        index = {id(p): i for i, p in enumerate(replica.params)}
        self._slots: list[tuple[dict[str, Any], str, int]] = [  # a tied one in several places
            (m._parameters, key, index[id(p)])
            for m in replica.net.modules()
            for key, p in m._parameters.items()
            if p is not None and id(p) in index
        ]

    def fill(self, params: Sequence[Any]) -> None:
        """Put parameters into the module."""
        for table, key, i in self._slots:
            table[key] = params[i]

    def loss(self, params: Sequence[Any], x: Tensor, y: Tensor) -> Tensor:
        """The loss of a batch of one client; its parameters stay in the module."""
        self.fill(params)
        return self._loss(self.replica.net(x), y)

    def losses(self, params: Sequence[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The loss of each client and its gradients; all have the clients in their first dimension."""
        params = [p.requires_grad_() for p in params]
        try:
            values = torch.func.vmap(self.loss)(params, x, y)
        finally:
            self.put_back()
        return values, torch.autograd.grad(values, params, torch.ones_like(values))

    def put_back(self) -> None:
        """The module's own parameters into the module."""
        self.fill(self.replica.params)


__all__ = ["Batched"]
