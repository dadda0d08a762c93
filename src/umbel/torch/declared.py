"""`local_sgd`: local training that is declared and not written as a loop."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from umbel.arrays import Arrays
from umbel.client.context import Context
from umbel.client.declared import PARAMETERS, Steps
from umbel.errors import UsageError
from umbel.torch.replica import Replica
from umbel.torch.stack import Stacks
from umbel.update import Update


@final
@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class LocalSgd:
    """Declared local training with a PyTorch module; made by ``umbel.torch.local_sgd``.

    Attributes:
        module: the module, or a function that makes it.
        loss: of a batch: ``loss(outputs, targets)``.
        steps: what is done.
    """

    module: nn.Module | Callable[[], nn.Module]
    loss: Callable[[Any, Any], Tensor]
    steps: Steps

    def __call__(self, model: Arrays, ctx: Context) -> Update:
        """Train one client: the reference form."""
        return _shop(self, ctx).replica.train(self.loss, self.steps, model, ctx)

    def many(self, models: Sequence[Arrays], contexts: Sequence[Context]) -> list[Update] | None:
        """Train a group of clients at once, where that is faster; else None."""
        stacks = _shop(self, contexts[0]).stacks
        return None if stacks is None else stacks.train(models, contexts)


@final
@dataclass(frozen=True, slots=True)
class _Shop:
    """What a process keeps for one declared training on one device; no stacks where the module is too large."""

    replica: Replica
    stacks: Stacks | None


_shops: WeakKeyDictionary[LocalSgd, dict[str, _Shop]] = WeakKeyDictionary()


def _shop(declared: LocalSgd, ctx: Context) -> _Shop:
    mine = _shops.setdefault(declared, {})
    shop = mine.get(ctx.device)
    if shop is None:
        replica = Replica(declared.module, ctx.device)
        shop = mine[ctx.device] = _Shop(replica, _stacks(declared, replica))
    return shop


def _stacks(declared: LocalSgd, replica: Replica) -> Stacks | None:
    """What trains groups, on copies of a module that was not used yet: so it is the same in every process."""
    try:
        tensors = [*replica.net.parameters(), *replica.net.buffers()]
        if sum(t.numel() * t.element_size() for t in tensors) > PARAMETERS:
            return None
        module = copy.deepcopy(replica.net)
    except Exception:  # noqa: BLE001  # lazy layers, or what has no copy: such modules are trained one by one
        return None
    return Stacks(module, replica.device, declared.loss, declared.steps)


def local_sgd(
    module: nn.Module | Callable[[], nn.Module],
    loss: Callable[[Any, Any], Tensor],
    *,
    lr: float | str,
    batch: int,
    epochs: int = 1,
    shuffle: bool = False,
) -> LocalSgd:
    """Declare local training as plain SGD, so that many small clients can be computed at once.

        client.train(umbel.torch.local_sgd(Net, torch.nn.functional.cross_entropy, lr=0.1, batch=10))

    ``ctx.data`` is a pair (inputs, targets) of arrays or tensors with one row per sample, or has a ``.train`` that
    is one. The update has the number of samples as its weight, and as its metric ``loss`` the mean over all samples
    of all epochs, as they were met. A strategy's correction is applied, as by ``umbel.torch.local``.

    In the reference form clients are trained one after the other, with lean steps that do without ``torch.optim``.
    An engine that hands over a whole group, with an app without middleware, has up to 64 clients trained as one
    batched computation, with the same result up to rounding: fewer where their parameters or their data would come to
    more than 8 MiB, or what a step keeps to more than 64 MiB; none where that leaves fewer
    than 16, where clients' samples have different shapes, and with modules that convolve (on a CPU), draw random
    numbers (dropout), change their input or themselves (BatchNorm), are recurrent, embed with padding, have more than
    8 MiB of parameters and buffers, or cannot be batched by ``torch.func.vmap``.

    Args:
        module: the module, which is copied, or a function that makes it; done once per process. It is trained in the
            mode, ``train()`` or ``eval()``, that it has then. Its parameters with ``requires_grad`` are trained, and
            the model must have them all.
        loss: ``loss(outputs, targets)`` gives the mean over a batch, and depends on nothing but these.
        lr: the learning rate; or the name of the setting in ``ctx.config`` that holds it, so that it can be a
            schedule.
        batch: samples per step; the last batch of an epoch has what is left.
        epochs: passes over the client's data.
        shuffle: draw the order of the samples of each epoch from ``ctx.rng``; else they are taken as they are.

    Raises:
        UsageError: an argument makes no sense. Later, as a client's failure: the data are no pair, or the model
            lacks a parameter that would be trained.
    """
    if isinstance(module, type) and not issubclass(module, nn.Module):
        raise UsageError(f"local_sgd() was given the class {module.__name__}", advice="give a torch.nn.Module")
    for what, given in (("module", module), ("loss", loss)):
        if not callable(given):
            raise UsageError(f"local_sgd(): {what} is a {type(given).__name__}", advice="give a module and a function")
    return LocalSgd(module, loss, Steps(lr=lr, batch=batch, epochs=epochs, shuffle=shuffle))


__all__ = ["LocalSgd", "local_sgd"]
