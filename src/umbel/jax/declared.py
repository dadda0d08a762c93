"""`local_sgd`: local training with JAX that is declared and not written as a loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final
from weakref import WeakKeyDictionary

import jax

from umbel.arrays import Arrays
from umbel.client.context import Context
from umbel.client.declared import Steps
from umbel.errors import UsageError
from umbel.jax.program import Program
from umbel.update import Update


@final
@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class LocalSgd:
    """Declared local training with JAX; made by ``umbel.jax.local_sgd``.

    Attributes:
        loss: of a batch: ``loss(params, inputs, targets)``.
        like: the structure of ``params``, or a function that makes it, or None.
        steps: what is done.
    """

    loss: Callable[[Any, Any, Any], jax.Array]
    like: Any
    steps: Steps

    def __call__(self, model: Arrays, ctx: Context) -> Update:
        """Train one client: the reference form."""
        return _program(self, model).train(model, ctx)

    def many(self, models: Sequence[Arrays], contexts: Sequence[Context]) -> list[Update] | None:
        """Train a group of clients at once, where that is faster; else None."""
        return _program(self, models[0]).train_many(models, contexts)


_programs: WeakKeyDictionary[LocalSgd, Program] = WeakKeyDictionary()


def _program(declared: LocalSgd, model: Arrays) -> Program:
    program = _programs.get(declared)
    if program is None or program.spec != model.spec:
        program = _programs[declared] = Program(declared.loss, declared.like, declared.steps, model)
    return program


def local_sgd(
    loss: Callable[[Any, Any, Any], jax.Array],
    *,
    lr: float | str,
    batch: int,
    epochs: int = 1,
    shuffle: bool = False,
    like: Any = None,
) -> LocalSgd:
    """Declare local training as plain SGD on a loss, compiled once, for one client or for many at once.

        client.train(umbel.jax.local_sgd(loss, lr=0.1, batch=10))

    ``ctx.data`` is a pair (inputs, targets) of arrays with one row per sample, or has a ``.train`` that is one. The
    update has the number of samples as its weight, and as its metric ``loss`` the mean over all samples of all
    epochs, as they were met. Entries of role "trained" and "local" are trained; a strategy's correction is applied.

    An epoch of a client is one compiled program: one for each size of a last batch and each number of full
    batches, which is rounded up beyond 8. So where sizes differ a lot, a small ``batch`` makes fewer programs.

    An engine that hands over a whole group, with an app without middleware, has up to 64 clients trained by one
    batched program (``jax.vmap``), with the same result up to rounding: fewer where their parameters or their
    data would come to more than 8 MiB; none where that leaves fewer than 16, where clients' samples
    have different shapes, and with losses that convolve (on a CPU).

    Args:
        loss: ``loss(params, inputs, targets)`` gives the mean over a batch; a pure function, as JAX wants it.
        lr: the learning rate; or the name of the setting in ``ctx.config`` that holds it, so that it can be a
            schedule.
        batch: samples per step; the last batch of an epoch has what is left.
        epochs: passes over the client's data.
        shuffle: draw the order of the samples of each epoch from ``ctx.rng``; else they are taken as they are.
        like: a tree like ``params``, or a function that makes one. Not needed where ``params`` are nested dicts
            whose keys have no "/".

    Raises:
        UsageError: an argument makes no sense. Later, as a client's failure: the data are no pair.
        EntryError: as a client's failure: the model does not fit ``like``.
    """
    if not callable(loss):
        raise UsageError(f"local_sgd(): loss is a {type(loss).__name__}", advice="give a function")
    return LocalSgd(loss, like, Steps(lr=lr, batch=batch, epochs=epochs, shuffle=shuffle))


__all__ = ["LocalSgd", "local_sgd"]
