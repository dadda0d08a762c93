"""Many clients as one batched computation: SGD on stacked parameters.

The parameters of the clients of a stack lie side by side in one block, which is the memory of their updates: what is
trained there need not be copied out. How the module runs on all of them at once: `umbel.torch.batched`.

Clients of different sizes: they are sorted by how many full batches they have, so that those that still have one are
the first rows; last batches are done for all clients that have one of the same size. A client's own steps keep their
order. Nothing is padded, so nothing is masked.

Softmax regression needs none of that; see `umbel.torch.softmax`.

Whether a module is stacked, and how many clients at once, follows from the module, the shapes of the data
(`umbel.torch.trial`) and constants that were measured (docs/adr/0019-declared-local-training.md); never from a clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from umbel.arrays import Array, Arrays
from umbel.client.context import Context
from umbel.client.declared import Steps, made_of, parts, side_by_side, width_of
from umbel.elements import HARMLESS
from umbel.spec import FLOATS, STORAGE, Spec
from umbel.torch.batched import Batched
from umbel.torch.module import over
from umbel.torch.replica import Loss, Replica
from umbel.torch.training import terms_of
from umbel.torch.trial import Trial, generators
from umbel.update import Update

_LARGE = min(HARMLESS.values()) ** 0.5  # a norm that no weight makes too large
_LOOKED_AT = (torch.float32, torch.float64)

Key = tuple[Any, ...]


@final
@dataclass(slots=True)
class _Term:
    """The correction of one parameter for each client of a stack."""

    pull: Tensor | None
    anchor: Tensor
    offset: Tensor | None

    def corrected(self, p: Tensor, gradient: Tensor, rows: Any) -> Tensor:
        if self.pull is not None:
            anchor = self.anchor if self.anchor.dim() < p.dim() else self.anchor[rows]
            gradient = gradient + self.pull[rows] * (p - anchor)
        return gradient if self.offset is None else gradient + self.offset[rows]


@final
@dataclass(frozen=True, slots=True)
class _Training:
    """A stack that is being trained: what each client has come to, row by row."""

    batched: Batched
    params: list[Tensor]
    terms: list[_Term | None]
    totals: Tensor
    rate: float


@final
@dataclass(slots=True)
class _Sizes:
    """Which rows of a stack have which batches; clients are sorted by their number of full batches, downwards."""

    sizes: list[int]
    batch: int
    full: list[int] = field(init=False)  # how many clients have a full batch 0, 1, ...
    last: list[tuple[int, list[int]]] = field(init=False)  # sizes of last batches, and who has one

    def __post_init__(self) -> None:
        counts = [n // self.batch for n in self.sizes]
        self.full = [sum(c > s for c in counts) for s in range(max(counts, default=0))]
        rests: dict[int, list[int]] = {}
        for k, n in enumerate(self.sizes):
            if n % self.batch:
                rests.setdefault(n % self.batch, []).append(k)
        self.last = sorted(rests.items())


@final
class Stacks:
    """Groups of clients trained at once.

    Args:
        module: as it was made, before anything was trained; it is copied.
        device: where it computes.
        loss: of a batch.
        steps: what is done.
    """

    def __init__(self, module: nn.Module, device: str, loss: Loss, steps: Steps) -> None:
        self._module, self._device, self._loss, self._steps = module, device, loss, steps
        self._batched: Batched | None = None
        self._trials: dict[Key, Trial] = {}  # by the shapes that they depend on
        self._trial: Trial  # of the group that is being trained

    def train(self, models: Sequence[Arrays], contexts: Sequence[Context]) -> list[Update] | None:
        """The updates of a group; None where the clients are better trained one by one."""
        batched = self._filled(models[0])
        replica = batched.replica
        data = [replica.data(ctx) for ctx in contexts]
        first, each = _sample(data[0]), sum(math.prod(t.shape[1:]) * t.element_size() for t in data[0])
        if any(_sample(d) != first for d in data) or not _alike(models, replica):
            return None
        counts = [x.shape[0] for x, _ in data]
        sizes = [n * each for n in counts]
        width = width_of(sum(p.numel() * p.element_size() for p in replica.params), sizes)
        if not width:
            return None
        self._trial = self._tried(models[0].canonical().spec, data[0])
        if not (width := min(width, self._trial.most)):
            return None
        order = sorted(range(len(data)), key=lambda k: (-(counts[k] // self._steps.batch), k))
        updates: dict[int, Update] = {}
        self._batched = None  # whatever happens below, and unless it ends well, nobody uses it again
        before = generators(torch.device(self._device))
        for part in parts(order, sizes, width):
            chosen = [models[k] for k in part], [contexts[k] for k in part], [data[k] for k in part]
            updates.update(zip(part, self._train(batched, *chosen), strict=True))
        if generators(torch.device(self._device)) != before:  # all clients of a stack got the same numbers
            return None
        self._batched = batched
        return [updates[k] for k in range(len(data))]

    def _filled(self, model: Arrays) -> Batched:
        """The module with a model in it."""
        batched = self._batched
        spec = model.canonical().spec
        if batched is None or batched.replica.spec != spec:
            batched = self._batched = Batched(self._copy(spec), self._loss)
        batched.replica.load(model)
        return batched

    def _copy(self, spec: Spec) -> Replica:
        replica = Replica(self._module, self._device)
        replica.lay_out(spec)
        return replica

    def _tried(self, spec: Spec, like: tuple[Tensor, Tensor]) -> Trial:
        key = (spec, _sample(like))
        trial = self._trials.get(key)
        if trial is None:
            trial = self._trials[key] = Trial(self._copy(spec), self._loss, like, self._steps.batch)
        return trial

    # --- training --------------------------------------------------------------------------------

    def _train(
        self,
        batched: Batched,
        models: Sequence[Arrays],
        contexts: Sequence[Context],
        data: Sequence[tuple[Tensor, Tensor]],
    ) -> list[Update]:
        replica, steps = batched.replica, self._steps
        arrays, block = side_by_side(replica.out, len(models))
        _fill(block, models, replica)
        homes = [_stacked(block, replica, name) for name in replica.names]
        training = _Training(
            batched,
            [h.to(replica.device) for h in homes],
            _terms(replica, contexts),
            torch.zeros(len(models), dtype=torch.float64, device=replica.device),
            steps.rate(contexts[0].config),
        )
        sizes = _Sizes([x.shape[0] for x, _ in data], steps.batch)
        batches = _Batches(data, sizes, steps, contexts)
        for epoch in range(steps.epochs):
            for begin, count, rows in batches.rounds():
                self._step(training, *batches.take(epoch, begin, count, rows), rows)
        for home, p in zip(homes, training.params, strict=True):
            if home is not p:  # on another device
                home.copy_(p)
        for a, harmless in zip(arrays, _are_harmless(replica, training.params), strict=True):
            a.harmless = harmless
        sums = training.totals.tolist()
        return [_update(a, total, n, steps) for a, total, n in zip(arrays, sums, sizes.sizes, strict=True)]

    def _step(self, training: _Training, x: Tensor, y: Tensor, rows: Any) -> None:
        """One step of the clients in ``rows``: a slice of the stack, which is stepped in place, or an index."""
        mine, form = [p[rows] for p in training.params], self._trial.form(x.shape[1])
        if form is not None and not any(training.terms):
            values = form.step(mine, x, y, training.rate)
        else:
            if form is None:  # the user's code gets copies: it may change larger batches than the trial's
                given = (t if t._base is None else t.clone() for t in (x, y))
                values, gradients = training.batched.losses(mine, *given)
            else:
                values, gradients = form.gradients(mine, x, y)
            with torch.no_grad():
                changes = [
                    g if t is None else t.corrected(p, g, rows)
                    for p, g, t in zip(mine, gradients, training.terms, strict=True)
                ]
                torch._foreach_add_(mine, changes, alpha=-training.rate)
        training.totals[rows] += values.detach().double() * x.shape[1]
        if not isinstance(rows, slice):
            for p, new in zip(training.params, mine, strict=True):
                p[rows] = new.detach()


@final
class _Batches:
    """The data of a stack, side by side, and its batches."""

    def __init__(
        self,
        data: Sequence[tuple[Tensor, Tensor]],
        sizes: _Sizes,
        steps: Steps,
        contexts: Sequence[Context],
    ) -> None:
        self._sizes, self._batch, self._device = sizes, steps.batch, data[0][0].device
        self._x, self._y = (torch.cat([d[i] for d in data]) for i in (0, 1))
        starts = np.cumsum([0, *sizes.sizes])
        self._starts: Array = starts[:-1]
        orders = [steps.orders(ctx, n) for ctx, n in zip(contexts, sizes.sizes, strict=True)]
        self._orders: list[Array] = []
        if steps.shuffle:
            self._orders = [
                np.concatenate([o[epoch] + s for o, s in zip(orders, self._starts, strict=True) if o is not None])
                for epoch in range(steps.epochs)
            ]
        n = sizes.sizes[0]
        self._even = n if not steps.shuffle and n and all(m == n for m in sizes.sizes) else 0
        if self._even:
            self._x = self._x.view(len(data), n, *self._x.shape[1:])
            self._y = self._y.view(len(data), n, *self._y.shape[1:])

    def rounds(self) -> Iterable[tuple[Array, int, Any]]:
        """Of an epoch: where the batches begin in the clients, how long they are, and the rows that have them."""
        for step, active in enumerate(self._sizes.full):
            yield np.full(active, step * self._batch), self._batch, slice(0, active)
        for rest, who in self._sizes.last:
            begin = np.array([self._sizes.sizes[k] - rest for k in who])
            together = who == list(range(who[0], who[-1] + 1))
            rows = slice(who[0], who[-1] + 1) if together else torch.tensor(who, device=self._device)
            yield begin, rest, rows

    def take(self, epoch: int, begin: Array, count: int, rows: Any) -> tuple[Tensor, Tensor]:
        """One batch of each of these rows."""
        if self._even:
            part = slice(int(begin[0]), int(begin[0]) + count)
            return self._x[rows, part], self._y[rows, part]
        starts = self._starts[rows if isinstance(rows, slice) else rows.cpu().numpy()]
        index = (starts + begin)[:, None] + np.arange(count)
        if self._orders:
            index = self._orders[epoch][index]
        chosen = torch.from_numpy(index).to(self._device)
        return self._x[chosen], self._y[chosen]


def _sample(data: tuple[Tensor, Tensor]) -> Key:
    x, y = data
    return x.shape[1:], x.dtype, y.shape[1:], y.dtype


def _alike(models: Sequence[Arrays], replica: Replica) -> bool:
    """May these models be stacked: is what they differ in trained, or is it one model?"""
    first = models[0]
    if all(m is first for m in models):
        return True
    trained = set(replica.names)
    fixed = [e.name for e in first.spec.entries if e.name not in trained]
    return all(
        m.spec == first.spec and all(m.raw(n).tobytes() == first.raw(n).tobytes() for n in fixed) for m in models
    )


def _fill(block: Array, models: Sequence[Arrays], replica: Replica) -> None:
    """Each row of the block: the entries of its client's model."""
    first = models[0].canonical()
    same = all(m is models[0] for m in models)
    whole = replica.out is replica.spec
    for k, model in enumerate([first] if same else [m.canonical() for m in models]):
        rows = block if same else block[k : k + 1]
        if whole:
            rows[:] = np.frombuffer(model.to_bytes(), np.uint8, offset=len(model.spec.header))
        else:
            for e in replica.out.entries:
                rows[:, e.offset : e.offset + e.nbytes] = model.raw(e.name).reshape(-1).view(np.uint8)


def _stacked(block: Array, replica: Replica, name: str) -> Tensor:
    """An entry of all clients of a block as one tensor over its memory."""
    e = replica.out.by_name[name]
    part = block[:, e.offset : e.offset + e.nbytes]
    return over(part.view(STORAGE[e.dtype]).reshape(len(block), *e.shape), e.dtype)


def _are_harmless(replica: Replica, params: Sequence[Tensor]) -> list[bool]:
    """Of each client: are all that an update holds seen to be finite and far from overflow? See `Arrays.harmless`."""
    floats = {e.name for e in replica.out.entries if e.dtype in FLOATS}
    if not floats <= set(replica.names) or any(p.dtype not in _LOOKED_AT for p in params):
        return [False] * len(params[0])
    norms = torch.stack([torch.linalg.vector_norm(p.reshape(len(p), p[0].numel()), dim=1) for p in params])
    seen: list[bool] = (norms < _LARGE).all(0).tolist()
    return seen


def _update(arrays: Arrays, total: float, size: int, steps: Steps) -> Update:
    """The update of one client; the bench checks it."""
    said = made_of(total, size, steps)
    update = Update.made("model", arrays.freeze(), weight=said["weight"], metrics=said["metrics"], extra={})
    update.steps = said["steps"]
    return update


def _terms(replica: Replica, contexts: Sequence[Context]) -> list[_Term | None]:
    """The corrections of all clients, side by side; for each parameter."""
    corrections = [ctx.correction for ctx in contexts]
    if all(c is None for c in corrections):
        return [None] * len(replica.params)
    found = [{} if c is None else terms_of(replica.named, c) for c in corrections]
    pulls = [0.0 if c is None else c.pull for c in corrections]
    terms: list[_Term | None] = []
    for p in replica.params:
        mine = [f.get(id(p)) for f in found]
        if all(t is None for t in mine):
            terms.append(None)
            continue
        pull = [0.0 if t is None else c for t, c in zip(mine, pulls, strict=True)]
        anchors = [p.detach() if t is None else t.anchor for t in mine]
        shared = len({a.data_ptr() for a in anchors}) == 1
        offsets = [None if t is None else t.offset for t in mine]
        shape = (len(mine), *(1,) * p.dim())
        terms.append(
            _Term(
                torch.tensor(pull, dtype=p.dtype, device=p.device).view(shape) if any(pull) else None,
                anchors[0] if shared else torch.stack(anchors),
                None
                if all(o is None for o in offsets)
                else torch.stack([torch.zeros_like(p) if o is None else o for o in offsets]),
            )
        )
    return terms


__all__ = ["Stacks"]
