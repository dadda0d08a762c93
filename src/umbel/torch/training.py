"""Local training that a strategy may correct, around an unchanged training loop.

The correction is added to the gradients in a hook that runs right before an optimizer steps. A hook on
the backward pass would add it once per micro-batch, and the loop itself would have to know of it.

- Each gradient gets the correction once. It then carries a mark with its version, so that a step
  within a step (an optimizer that wraps another) or a second step without a new backward pass adds nothing.
- In a step with a closure each evaluation gets the correction in its gradients and the matching term
  in its loss, so that a line search sees a function and its own gradient.
- A parameter whose gradient is None is skipped by the optimizer, and so by the correction.
- Gradients that a gradient scaler left scaled, for a fused optimizer to unscale, get a scaled correction.
- One hook serves all threads. It stays registered, since PyTorch's table of hooks must not change
  while another thread steps, and finds by the identity of the parameters whom it concerns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import Any, Protocol, Self, final
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from umbel.arrays import Arrays
from umbel.correction import Correction
from umbel.errors import EntryError, UsageError
from umbel.torch.module import borrow, like, load
from umbel.update import Metric, Update

_MARK = "_umbel_version"
_active: dict[int, Local] = {}  # by the id of a parameter, which its `Local` keeps alive
_left: WeakValueDictionary[int, Local] = WeakValueDictionary()  # the same of those whose `with` is over


class HasCorrection(Protocol):
    """What `local` reads of a context."""

    @property
    def correction(self) -> Correction | None:
        """What the strategy adds to local gradients, or None."""


@final
@dataclass(slots=True)
class Term:
    """The correction of one parameter."""

    name: str
    anchor: Tensor
    offset: Tensor | None

    def beside(self, p: Tensor) -> Self:
        """Itself, where the parameter is; that may have moved since training began."""
        if self.anchor.device != p.device or self.anchor.dtype != p.dtype:
            self.anchor = self.anchor.to(p)
            self.offset = None if self.offset is None else self.offset.to(p)
        return self


@final
class Local:
    """Local training of one module; made by ``umbel.torch.local``.

    Attributes:
        net: the module.
        model: what training started from.
    """

    def __init__(self, net: nn.Module, model: Arrays, ctx: HasCorrection) -> None:
        self.net = net
        self.model = model
        self._correction = ctx.correction
        self._params: dict[int, Tensor] = {}
        self._terms: dict[int, Term] = {}
        self._counts: dict[int, int] = {}
        self._late = False  # was the module stepped after the `with`?

    @property
    def steps(self) -> int:
        """Optimizer steps so far: how often the parameter that was stepped most was stepped.

        So two optimizers on two parts count as one, and a new optimizer per epoch counts on. Steps that a
        gradient scaler skipped do not count.
        """
        return max(self._counts.values(), default=0)

    def update(
        self,
        *,
        weight: float = 1.0,
        metrics: Mapping[str, Metric] | None = None,
        extra: Mapping[str, Arrays | Mapping[str, Any]] | None = None,
    ) -> Update:
        """The module's values, for exactly the entries of the model that was sent, as an update.

        Args:
            weight: the update's share in the mean; usually the number of examples.
            metrics: numbers by name.
            extra: more named arrays.

        Raises:
            EntryError: the module was changed so that an entry has another dtype or shape.
            UsageError: an optimizer stepped the module after the ``with``, where nothing corrects it.
        """
        if self._late:
            raise UsageError(
                f"{type(self.net).__name__} was trained after the `with umbel.torch.local(...)`, and not corrected",
                advice="put the whole loop into the `with`",
            )
        return Update(model=like(self.net, self.model.spec), weight=weight, metrics=metrics, extra=extra)

    def __enter__(self) -> Local:
        params: dict[int, Tensor] = {id(p): p for p in self.net.parameters()} if isinstance(self.net, nn.Module) else {}
        if any(key in _active for key in params):
            raise UsageError(
                f"this {type(self.net).__name__} is already inside a `with umbel.torch.local(...)`",
                advice="give each client and each thread a module of its own",
            )
        _see_steps()
        named = load(self.net, self.model)
        self._terms = terms_of(named, self._correction) if self._correction else {}
        self._counts.clear()
        self._late = False
        for key in params:
            _left.pop(key, None)
        self._params = params
        _active.update(dict.fromkeys(params, self))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for key in self._params:
            _active.pop(key, None)
        try:
            if kind is None and self._terms:
                self._check_applied()
                _left.update(dict.fromkeys(self._terms, self))
        finally:
            self._params, self._terms = {}, {}

    def _check_applied(self) -> None:
        """The loop was left in good order: did the hook see what it should?"""
        what = ""
        current = {id(p) for p in self.net.parameters()}
        if lost := next((term.name for key, term in self._terms.items() if key not in current), None):
            what = f"parameter {lost!r} was replaced by another while training"
        elif not self.steps:
            pairs = ((self._params[key], term) for key, term in self._terms.items())
            if name := next((t.name for p, t in pairs if not torch.equal(p, t.beside(p).anchor)), None):
                what = f"parameter {name!r} was trained, but no torch.optim optimizer stepped it"
        if what:
            raise UsageError(
                f"{type(self.net).__name__}: {what}; the strategy's correction was not applied",
                advice="step the module's own parameters with a torch.optim optimizer; "
                "or call umbel.torch.into and add ctx.correction to the gradients in your own loop",
            )

    # --- called by the hook ------------------------------------------------------------------

    def count(self, params: Sequence[Tensor]) -> None:
        """One step of these parameters begins."""
        for p in params:
            if p.grad is not None and not _marked(p.grad):
                self._counts[id(p)] = self._counts.get(id(p), 0) + 1

    def correct(self, params: Sequence[Tensor], scale: Tensor | None = None) -> list[Tensor]:
        """Add the correction to the gradients that do not have it yet; the parameters that got it."""
        fresh = [(p, p.grad) for p in params if p.grad is not None and not _marked(p.grad)]
        due = [(p, g, self._terms[id(p)]) for p, g in fresh if id(p) in self._terms]
        with torch.no_grad():
            for p, grad, term in due:
                self._add(p, grad, term, scale)
        for _, grad in fresh:
            setattr(grad, _MARK, grad._version)
        return [p for p, _, _ in due]

    def _add(self, p: Tensor, grad: Tensor, term: Term, scale: Tensor | None) -> None:
        assert self._correction is not None
        if grad.layout != torch.strided:
            raise UsageError(
                f"the gradient of {term.name!r} is sparse and the strategy's correction is dense",
                advice="use Embedding(..., sparse=False) with a strategy that corrects local training",
            )
        term.beside(p)
        pull = self._correction.pull
        if scale is not None:
            scale = scale.to(grad.device)
        if pull:
            gap = p - term.anchor
            grad.add_(gap if scale is None else gap.mul_(scale), alpha=pull)
        if term.offset is not None:
            grad.add_(term.offset if scale is None else term.offset * scale)

    def loss(self, params: Sequence[Tensor]) -> Tensor:
        """The term of the loss: pull / 2 * |w - anchor|^2 + <offset, w> over some parameters."""
        assert self._correction is not None
        total = torch.zeros(())
        with torch.no_grad():
            for p in params:
                term = self._terms[id(p)]
                value = (p - term.anchor).square().sum() * (self._correction.pull / 2)
                if term.offset is not None:
                    value = value + (term.offset * p).sum()
                total = total.to(value) + value
        return total


def local(net: nn.Module, model: Arrays, ctx: HasCorrection) -> Local:
    """Train a module locally, corrected as the strategy asks; the training loop stays as it is.

        with umbel.torch.local(net, model, ctx) as local:
            optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
            for x, y in batches:
                optimizer.zero_grad()
                loss(net(x), y).backward()
                optimizer.step()
        return local.update(weight=len(data))

    Entering writes the model into the module as ``umbel.torch.into`` does. Inside, whenever an optimizer
    steps parameters of the module, their gradients get ``pull * (w - anchor) + offset`` of
    ``ctx.correction`` first: FedProx, SCAFFOLD and FedDyn work with any ``torch.optim`` optimizer, gradient
    accumulation, mixed precision, and closures (whose loss then includes the correction's term). Clipping
    that the loop does before the step acts on the uncorrected gradient. A parameter without a gradient is
    not stepped and not corrected.

    Args:
        net: the module; not in use by another ``local``.
        model: what to start from.
        ctx: the handler's context; its ``correction`` is read.

    Raises:
        EntryError: the model or the correction does not fit the module.
        UsageError: the module is in use; a gradient is sparse; or, at the end, the module was trained but
            no optimizer step was seen that could be corrected.
    """
    return Local(net, model, ctx)


def terms_of(named: Mapping[str, Tensor], correction: Correction) -> dict[int, Term]:
    """The correction by the id of the parameter."""
    if not correction.pull and correction.offset is None:
        return {}
    terms: dict[int, Term] = {}
    for e in correction.anchor.spec.entries:
        if e.role != "trained":
            continue
        if e.name not in named:
            raise EntryError(
                f"the correction has {e.name!r}, which the model does not have",
                entry=e.name,
                advice="correct the entries of the model that was sent",
            )
        p = named[e.name]
        offset = None if correction.offset is None else _like(p, correction.offset, e.name)
        terms[id(p)] = Term(e.name, _like(p, correction.anchor, e.name), offset)
    return terms


def _like(p: Tensor, source: Arrays, name: str) -> Tensor:
    """An entry of the correction as a tensor like the parameter; without a copy if it is one already."""
    e = source.spec.by_name.get(name)
    if e is None or e.shape != p.shape:
        raise EntryError(
            f"the correction of {name!r} has {f'shape {e.shape}' if e else 'no values'}, the module {tuple(p.shape)}",
            entry=name,
            advice="a correction needs the trained entries of the model that was sent",
        )
    return borrow(source.raw(name), e.dtype).to(p)


def _marked(grad: Tensor) -> bool:
    return getattr(grad, _MARK, None) == grad._version


def _before_step(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The hook: correct the gradients that this step will use, or see to it that the closure does."""
    if _left:
        _note_late(optimizer)
    if not _active:
        return None
    concerned: dict[Local, list[Tensor]] = {}
    for group in optimizer.param_groups:
        for p in group["params"]:
            owner = _active.get(id(p))
            if owner is not None:
                concerned.setdefault(owner, []).append(p)
    if not concerned:
        return None
    closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
    if callable(closure):
        evaluation = _Evaluation(closure, concerned)
        if "closure" in kwargs:
            return args, kwargs | {"closure": evaluation}
        return (args[0], evaluation, *args[2:]), kwargs
    found_inf = getattr(optimizer, "found_inf", None)
    if found_inf is not None and bool(found_inf):  # the fused step will do nothing; asking waits for the device
        return None
    for owner, params in concerned.items():
        owner.count(params)
        owner.correct(params, getattr(optimizer, "grad_scale", None))
    return None


def _note_late(optimizer: Optimizer) -> None:
    """Whose module does this step train, though its ``with`` is over?"""
    for group in optimizer.param_groups:
        for p in group["params"]:
            owner = _left.get(id(p))
            if owner is not None and p.grad is not None:
                owner._late = True


@final
class _Evaluation:
    """The user's closure, whose gradients get the correction and whose loss gets its term."""

    def __init__(self, closure: Callable[[], Any], concerned: Mapping[Local, Sequence[Tensor]]) -> None:
        self._closure = closure
        self._concerned = concerned
        self._counted = False

    def __call__(self) -> Any:
        loss = self._closure()
        for owner, params in self._concerned.items():
            if not self._counted:
                owner.count(params)
            corrected = owner.correct(params)
            if corrected and isinstance(loss, Tensor | float | int):
                term = owner.loss(corrected)
                loss = loss + (term.to(loss.device) if isinstance(loss, Tensor) else float(term))
        self._counted = True
        return loss


@cache
def _see_steps() -> None:
    """Have the hook called; not before it is needed, since each step of any optimizer takes a little longer with it."""
    register_optimizer_step_pre_hook(_before_step)


__all__ = ["Local", "Term", "local", "terms_of"]
