"""One process's copy of a module whose training was declared, and lean steps of SGD on it.

- Its tensors are views of flat memory in the layout of the model: one buffer for each run of entries of one dtype
  and role, in practice one. So the model goes in with one copy, and comes out with one.
- No ``torch.optim``: its first use in a process imports ``torch._dynamo``, which takes a second and 77 MB.
  Gradients come from ``torch.autograd.grad``, and ``torch._foreach_add_`` makes the step.
- What the model does not have and training changes (buffers that are not persistent) is put back for each client.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from umbel.arrays import Array, Arrays
from umbel.client.context import Context
from umbel.client.declared import Steps, check_lengths, made_of, pair, returned
from umbel.errors import EntryError, UsageError
from umbel.spec import STORAGE, Entry, Run, Spec
from umbel.torch.module import DTYPES, borrow, over, plan_incoming
from umbel.torch.plan import Named, Place, memory_of, walk
from umbel.torch.training import Term, terms_of
from umbel.update import Update

Loss = Callable[[Any, Any], Tensor]


@final
class Replica:
    """A module that is filled again and again.

    Args:
        module: the module, which is copied, or a function that makes it.
        device: where it computes.

    Attributes:
        net: the module.
        spec: of the model it is laid out for.
        out: of the updates: what comes back, and what stays at the client.
        named: its tensors by the names of the model.
        params: what is trained.
        names: the name of each of `params` in the model.
    """

    def __init__(self, module: nn.Module | Callable[[], nn.Module], device: str) -> None:
        if isinstance(module, nn.Module):
            net = copy.deepcopy(module)
        else:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(0)  # what the model lacks is the same in every process
                net = module()
        if not isinstance(net, nn.Module):
            raise UsageError(
                f"local_sgd() was given a function that made a {type(net).__name__}",
                advice="give a torch.nn.Module, or a function without arguments that returns one",
            )
        self.device = device
        self.net = net.to(device)
        self.spec: Spec | None = None
        self.out: Spec
        self.named: dict[str, Tensor] = {}
        self.params: list[Tensor] = []
        self.names: list[str] = []
        self._flats: list[tuple[Run, Tensor, Array | None]] = []  # and its values for NumPy, in main memory
        self._kept: list[tuple[Tensor, Tensor]] = []
        self._sent: frozenset[int] = frozenset()  # the tensors that the model has
        self._buffers: list[tuple[dict[str, Tensor | None], str, Tensor | None]] = []  # where the module has which

    def load(self, model: Arrays) -> None:
        """Write a model into the module.

        Raises:
            EntryError: the model does not fit the module.
            UsageError: the module cannot be trained from this model.
        """
        model = model.canonical()
        self.lay_out(model.spec)
        self._settle()
        with torch.no_grad():
            for run, flat, memory in self._flats:
                if memory is not None:  # for a small module PyTorch's copy takes several times as long
                    np.copyto(memory, model.flat(run))
                else:
                    flat.copy_(borrow(model.flat(run), run.dtype))
            for buffer, value in self._kept:  # what the model does not have, as it was when the module was made
                buffer.copy_(value)

    def _settle(self) -> None:
        """Buffers that training assigned anew: their values go to where the model lies, and so do they."""
        for table, key, mine in self._buffers:
            now = table[key]
            if now is mine:
                continue
            table[key] = mine
            if now is None or mine is None or id(mine) not in self._sent:
                continue
            if now.shape != mine.shape:
                raise EntryError(
                    f"buffer {key!r} of {type(self.net).__name__} has shape {tuple(now.shape)} after training, and "
                    f"{tuple(mine.shape)} in the model",
                    entry=key,
                    advice="keep its shape, or make it no part of the model: register_buffer(..., persistent=False)",
                )
            mine.copy_(now)

    def lay_out(self, spec: Spec) -> None:
        """Make the module's tensors views of flat memory in the order of a spec; they keep their values."""
        if self.spec is not None and (spec is self.spec or spec == self.spec):
            return
        named = Named(self.net)
        plan = plan_incoming(named, spec)
        _check_places(plan.once, plan.tied, spec, type(self.net).__name__)
        _, walked = walk(self.net)
        tensors = {p.entry.name: t for p in plan.once if (t := walked[p.index]) is not None}
        mine = {id(t) for t in tensors.values()}
        missing = next((n for n, p in self.net.named_parameters() if p.requires_grad and id(p) not in mine), None)
        if missing is not None:
            raise UsageError(
                f"parameter {missing!r} of {type(self.net).__name__} would be trained, and the model does not have it",
                advice="freeze it with requires_grad_(False), or send it: umbel.torch.arrays(net)",
            )
        self._flats = []
        for run in spec.runs:
            flat = torch.empty(run.size, dtype=DTYPES[run.dtype], device=self.device)
            self._flats.append((run, flat, memory_of(flat)))
            for e in _inside(spec, run):
                begin = (e.offset - run.offset) // STORAGE[e.dtype].itemsize
                home = flat[begin : begin + e.size].view(e.shape)
                tensors[e.name].data = home.copy_(tensors[e.name].detach())
        self._kept = [(b, b.detach().clone()) for b in self.net.buffers() if id(b) not in mine]
        self._sent = frozenset(mine)
        self._buffers = [(m._buffers, key, b) for m in self.net.modules() for key, b in m._buffers.items()]
        self.named = tensors
        self.names = [n for n, t in tensors.items() if isinstance(t, nn.Parameter) and t.requires_grad]
        self.params = [tensors[n] for n in self.names]
        self.out = returned(spec)
        self.spec = spec

    def update(self, **said: Any) -> Update:
        """The module's values as an update."""
        assert self.spec is not None
        with torch.no_grad():
            self._settle()
        made = Arrays.blank(self.out)
        if self.out is self.spec:
            for run, flat, memory in self._flats:
                if memory is not None:
                    np.copyto(made.flat(run), memory)
                else:
                    over(made.flat(run), run.dtype).copy_(flat)
        else:
            for e in self.out.entries:
                over(made.raw(e.name), e.dtype).copy_(self.named[e.name].detach())
        return Update(model=made.freeze(), **said)

    def data(self, ctx: Context) -> tuple[Tensor, Tensor]:
        """A client's inputs and targets, where the module computes."""
        inputs, targets = pair(ctx)
        inputs, targets = as_tensor(inputs, self.device), as_tensor(targets, self.device)
        check_lengths(inputs, targets)
        return inputs, targets

    def train(self, loss: Loss, steps: Steps, model: Arrays, ctx: Context) -> Update:
        """Train one client, one step after the other."""
        self.load(model)
        inputs, targets = self.data(ctx)
        size, rate = len(inputs), steps.rate(ctx.config)
        orders = steps.orders(ctx, size)
        correction = ctx.correction
        found = terms_of(self.named, correction) if correction is not None else {}
        pull = correction.pull if correction is not None else 0.0
        total = 0.0
        for epoch in range(steps.epochs):
            order = None if orders is None else torch.from_numpy(orders[epoch]).to(self.device)
            for i in range(0, size, steps.batch):
                # a copy, as a loader gives it: what a module does to its input is not done to the client's data
                x, y = (_rows(t, i, i + steps.batch, order) for t in (inputs, targets))
                value = loss(self.net(x), y)
                gradients = torch.autograd.grad(value, self.params, allow_unused=True)
                total += value.item() * min(steps.batch, size - i)
                with torch.no_grad():
                    _step(self.params, gradients, found, pull, rate)
        return self.update(**made_of(total, size, steps))


def _rows(values: Tensor, begin: int, end: int, order: Tensor | None) -> Tensor:
    """A copy of some samples."""
    return values[begin:end].clone() if order is None else values[order[begin:end]]


def _step(
    params: Sequence[Tensor], gradients: Sequence[Tensor | None], found: dict[int, Term], pull: float, rate: float
) -> None:
    """One step; a parameter without a gradient is neither stepped nor corrected, as in ``torch.optim``."""
    used = [(p, g) for p, g in zip(params, gradients, strict=True) if g is not None]
    mine = [p for p, _ in used]
    changes = [_corrected(p, g, found.get(id(p)), pull) if found else g for p, g in used]
    if mine:
        torch._foreach_add_(mine, changes, alpha=-rate)


def _corrected(p: Tensor, gradient: Tensor, term: Term | None, pull: float) -> Tensor:
    if term is None:
        return gradient
    if pull:
        gradient = gradient.add(p - term.anchor, alpha=pull)
    return gradient if term.offset is None else gradient + term.offset


def as_tensor(values: Any, device: str) -> Tensor:
    """An array or a tensor as a tensor on a device, without a copy if it lies there."""
    if isinstance(values, Tensor):
        mine: Tensor = values.detach() if values.requires_grad else values
        return mine if mine.device.type == device else mine.to(device)
    array: Array = np.ascontiguousarray(values) if np.ndim(values) else np.asarray(values)
    t: Tensor = torch.from_numpy(array) if array.flags.writeable else borrow(array, "")
    return t if device == "cpu" else t.to(device)


def _inside(spec: Spec, run: Run) -> list[Entry]:
    end = run.offset + run.size * STORAGE[run.dtype].itemsize
    return [e for e in spec.entries if e.size and run.offset <= e.offset < end]


def _check_places(once: Sequence[Place], tied: Sequence[tuple[Place, Place]], spec: Spec, kind: str) -> None:
    for a, b in tied:
        raise EntryError(
            f"{a.name!r} and {b.name!r} are one tensor in {kind} and two entries of the model",
            entry=b.name,
            advice="make the model from a module where they are tied: umbel.torch.arrays(net)",
        )
    if len(once) > len(spec.entries):
        alias, target = spec.aliases[0]
        raise EntryError(
            f"{alias!r} and {target!r} are tied in the model and are two tensors in {kind}",
            entry=alias,
            advice="tie them in the module too, or make the model from a module where they are not",
        )
    for place in once:
        if place.repeated:
            raise EntryError(
                f"{place.name!r} is an expanded tensor, which has no memory of its own",
                entry=place.name,
                advice="give it memory of its own: tensor.clone()",
            )


__all__ = ["Loss", "Replica", "as_tensor"]
