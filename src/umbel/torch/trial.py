"""Whether a module can be trained for many clients at once: it is tried on a copy, with made-up numbers.

What is found out must be the same in every process, since clients that are stacked come out with other last bits. So
a trial starts from the module as it was made, knows nothing of the model's values and of the clients' data but their
shapes, and heeds no warning that PyTorch gives once per process.

Stacked and alone must be the same computation, and not only come to similar numbers on this trial. So these are seen
to as well: the module's own parameters are not used (they are NaN meanwhile); nothing else that is trained comes into
the loss; the module does not change, nor its input; and no random numbers are drawn, of whatever generator.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from umbel.client.declared import NARROWEST
from umbel.client.determinism import states_of_modules
from umbel.torch.batched import Batched
from umbel.torch.replica import Loss, Replica
from umbel.torch.softmax import Softmax, softmax, unsigned

_VALUES = 64 << 20  # bytes of what one step of a stack keeps for its way back
_ROWS = 2  # samples of a client
_CLIENTS = 2  # what vmap does wrongly, it may do rightly for the first
_TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-3}  # of the largest gradient
_COARSE = 3e-2  # of other dtypes
_LOOP = "There is a performance drop"  # vmap warns so of what it can only do in a loop


@final
@dataclass(frozen=True, slots=True)
class _Made:
    """What a trial client computes with."""

    params: list[Tensor]
    x: Tensor
    y: Tensor


@final
class Trial:
    """A module on made-up numbers.

    Args:
        replica: a copy of the module, laid out for the model, which is used for nothing else.
        loss: of a batch.
        like: inputs and targets of a client, of which only the shapes and dtypes matter.
        batch: samples of a step.

    Attributes:
        most: how many clients a stack may have for what a step keeps; 0: the module cannot be stacked.
    """

    def __init__(self, replica: Replica, loss: Loss, like: tuple[Tensor, Tensor], batch: int) -> None:
        self._batched = Batched(replica, loss)
        self._like = tuple((t.shape[1:], t.dtype) for t in like)
        self._forms: dict[int, Softmax | None] = {}
        self._nbytes = 0
        rng = torch.Generator().manual_seed(0)
        self._params = [[_values_of(p, rng) for p in replica.params] for _ in range(_CLIENTS)]
        for p in replica.params:
            p.detach().fill_(math.nan)
        self.most = self._tried(batch)

    def form(self, rows: int) -> Softmax | None:
        """The closed form of the module and its loss for batches of so many samples, if there is one."""
        if rows not in self._forms:
            self._forms[rows] = self._form(rows)
        return self._forms[rows]

    def _form(self, rows: int) -> Softmax | None:
        """A loss may look at how large its batch is, so each size is looked at."""
        made = self._make(rows)[0]
        try:
            unchanged = made.x._version
            with _quiet():
                loss = self._batched.loss(made.params, made.x, made.y)
            return softmax(loss, made.params, made.x, made.y) if made.x._version == unchanged else None
        except Exception:  # noqa: BLE001  # then the user's code runs on real batches, where its errors find their client
            return None
        finally:
            self._batched.put_back()

    def _make(self, rows: int) -> list[_Made]:
        rng = torch.Generator().manual_seed(rows)
        (x, of_x), (y, of_y) = self._like
        device = self._batched.replica.device
        return [
            _Made(params, _batch((rows, *x), of_x, rng, -1.0).to(device), _batch((rows, *y), of_y, rng, 0.0).to(device))
            for params in self._params
        ]

    def _tried(self, batch: int) -> int:
        clients = self._make(_ROWS)
        try:
            with _quiet():
                alone = [self._alone(one) for one in clients]
                stacked = [torch.stack(own) for own in zip(*self._params, strict=True)]
                x, y = torch.stack([c.x for c in clients]), torch.stack([c.y for c in clients])
                found = [self._batched.losses([p.detach() for p in stacked], x, y)]  # raises where values decide
                if (form := self.form(_ROWS)) is not None:
                    found.append(form.gradients([p.detach() for p in stacked], x, y))
        except Exception:  # noqa: BLE001  # what cannot be stacked is trained one by one, where errors find their client
            return 0
        for values, gradients in found:
            for i, one in enumerate(alone):
                if one is None or not all(map(_close, (values[i], *(g[i] for g in gradients)), one)):
                    return 0
        most = _VALUES // max(1, self._nbytes * batch // (_ROWS * len(clients)))
        return most if most >= NARROWEST else 0

    def _alone(self, made: _Made) -> tuple[Tensor, ...] | None:
        """The loss of a client and its gradients; None: stacked, it would be another computation."""
        self._batched.fill(made.params)
        before = _Seen(self._batched.replica.net, made)
        with torch.autograd.graph.saved_tensors_hooks(self._keep, lambda t: t):
            loss = self._batched.loss(made.params, made.x, made.y)
        same = _Seen(self._batched.replica.net, made).marks == before.marks
        self._batched.put_back()
        if not same or not _is_fit(loss, made.params):
            return None
        gradients = torch.autograd.grad(loss, made.params, allow_unused=True)
        used = tuple(g for g in gradients if g is not None)
        return (loss, *used) if len(used) == len(gradients) else None

    def _keep(self, t: Tensor) -> Tensor:
        self._nbytes += t.numel() * t.element_size()
        return t


@final
class _Seen:
    """What may not change while a loss is computed: the module, its input, and the generators.

    Attributes:
        marks: equal to those of another look if nothing has changed.
    """

    def __init__(self, net: nn.Module, made: _Made) -> None:
        self._held: list[Any] = [made.x, made.y]  # so that no id is used again
        for module in net.modules():
            for value in vars(module).values():
                self._held.append(value)
                if isinstance(value, dict):
                    self._held += [*value.keys(), *value.values()]
                elif isinstance(value, list | tuple | set):
                    self._held += value
        marks = [(id(v), v._version if isinstance(v, Tensor) else 0) for v in self._held]
        self.marks = marks, generators(made.x.device)


def generators(device: torch.device) -> tuple[Any, ...]:
    """Equal to those of another look if no random numbers were drawn, of PyTorch, `random` or `numpy.random`."""
    states = [torch.default_generator.get_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return *(bytes(state.numpy()) for state in states), *states_of_modules()


@contextmanager
def _quiet() -> Iterator[None]:
    """Warnings play no part, as some are given once per process; but vmap may not compute in a loop."""
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", message=_LOOP)
            yield
    finally:
        torch.set_warn_always(always)


def _is_fit(loss: Tensor, params: Sequence[Tensor]) -> bool:
    """Does the way back from a loss lead to these parameters alone, and through nothing that had better not be stacked?

    That is a convolution on a CPU, which is slower, and an embedding with padding, whose gradient vmap gets wrong.
    """
    own, known = {id(p) for p in params}, set[Any]()
    todo = [loss.grad_fn]
    for node in todo:  # grows while it is walked
        if node is None or node in known:
            continue
        known.add(node)
        todo += [n for n, _ in node.next_functions]
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in own:
            return False
        if ("Convolution" in node.name() and loss.device.type == "cpu") or _pads(node):
            return False
    return True


def _pads(node: Any) -> bool:
    return "EmbeddingBag" in node.name() or unsigned(getattr(node, "_saved_padding_idx", -1)) != unsigned(-1)


def _close(a: Tensor, b: Tensor) -> bool:
    tolerance = _TOLERANCE.get(b.dtype, _COARSE)
    size = float(b.detach().abs().max()) if b.numel() else 0.0
    return math.isfinite(size) and torch.allclose(a, b, rtol=tolerance, atol=tolerance * size)


def _uniform(shape: Sequence[int], rng: torch.Generator, low: float, high: float) -> Tensor:
    return torch.rand(tuple(shape), generator=rng, dtype=torch.float64) * (high - low) + low


def _values_of(p: Tensor, rng: torch.Generator) -> Tensor:
    """Values for a parameter that let what comes out be about as large as what goes in.

    They are positive, so that roots and logarithms of them are numbers.
    """
    fan = max(1, p[0].numel()) if p.dim() > 1 and len(p) else 1
    return (_uniform(p.shape, rng, 0.1, 1.0) / math.sqrt(fan)).to(p.device, p.dtype).requires_grad_()


def _batch(shape: Sequence[int], dtype: torch.dtype, rng: torch.Generator, low: float) -> Tensor:
    """Made-up inputs or targets: floats up to 1; whole numbers are 0, which is always a class and an index."""
    if dtype.is_floating_point:
        return _uniform(shape, rng, low, 1.0).to(dtype)
    return torch.zeros(tuple(shape), dtype=dtype)


__all__ = ["Trial", "generators"]
