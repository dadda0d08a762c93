"""Declared local training as compiled programs: an epoch of one client, and the same for many at once.

A client's full batches are a scan, its last, shorter batch a step of its own, so that no row is padded. The scan is
as long as the number of full batches, rounded up where there are many; what is too much changes nothing. It is unrolled
while it is short: as a loop of XLA's on a CPU it is far slower.

Clients that have last batches of one size are one stack, filled up to a power of two with copies of its last client,
whose results are dropped: few widths, few programs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import jax
import jax.numpy as jnp
import numpy as np

from umbel.arrays import Array, Arrays
from umbel.client.context import Context
from umbel.client.declared import (
    Steps,
    check_lengths,
    made_of,
    pair,
    parts,
    returned,
    side_by_side,
    width_of,
)
from umbel.errors import EntryError
from umbel.jax.tree import check_fits, leaves, value_of
from umbel.spec import FLOATS, STORAGE
from umbel.update import Update

_UNROLLED = 16  # steps; more make programs that take long to compile
_EXACT = 8  # full batches up to which their number is not rounded

Values = list[Any]


@final
@dataclass(frozen=True, slots=True)
class _Data:
    """A client's data in main memory."""

    x: Array
    y: Array

    @property
    def sample(self) -> tuple[Any, ...]:
        return self.x.shape[1:], self.x.dtype, self.y.shape[1:], self.y.dtype

    @property
    def nbytes(self) -> int:
        return self.x.nbytes + self.y.nbytes


@final
class Program:
    """Declared training of models of one spec.

    Args:
        loss: of a batch.
        like: the structure of the parameters, a function that makes it, or None.
        steps: what is done.
        model: a model of that spec.

    Attributes:
        spec: of the models.
    """

    def __init__(self, loss: Any, like: Any, steps: Steps, model: Arrays) -> None:
        self.spec = model.spec
        self._out = returned(model.spec)
        self._loss, self._steps = loss, steps
        tree = _nested(model) if like is None else like() if callable(like) else like
        found = leaves(tree)
        check_fits(found, model)
        missing = next((name for name in found if name not in model), None)
        if missing is not None:
            raise EntryError(f"the model has no {missing!r}, which like= has", entry=missing, advice="send it too")
        self._structure = jax.tree_util.tree_structure(tree)
        self._order = [model.spec.by_name[name].name for name in found]  # aliases as what they stand for
        by_name = model.spec.by_name
        self._trained = [e.name for e in self._out.entries if e.role in ("trained", "local") and e.dtype in FLOATS]
        self._fixed = [n for n in dict.fromkeys(self._order) if n not in set(self._trained)]
        self._anchored = [n for n in self._trained if by_name[n].role == "trained"]
        self._one = jax.jit(self._epoch)
        self._many: dict[Any, Any] = {}
        self._stackable: dict[Any, bool] = {}

    # --- the computation ---------------------------------------------------------------------------

    def _value(self, trained: Values, fixed: Values, x: Any, y: Any) -> Any:
        values = dict(zip(self._trained, trained, strict=True)) | dict(zip(self._fixed, fixed, strict=True))
        return self._loss(jax.tree_util.tree_unflatten(self._structure, [values[n] for n in self._order]), x, y)

    def _epoch(self, trained: Values, fixed: Values, correction: Any, batches: Any, rate: Any) -> tuple[Values, Any]:
        """One epoch of one client: its parameters after it, and the sum of the loss over its samples."""
        xs, ys, full, x, y = batches

        def step(p: Values, x: Any, y: Any) -> tuple[Values, Any]:
            value, gradients = jax.value_and_grad(self._value)(p, fixed, x, y)
            gradients = self._with_correction(p, gradients, correction)
            return [(w - rate * g).astype(w.dtype) for w, g in zip(p, gradients, strict=True)], value

        def body(carry: Any, batch: Any) -> tuple[Any, None]:
            p, total = carry
            index, bx, by = batch
            after, value = step(p, bx, by)
            kept = [jnp.where(index < full, new, old) for new, old in zip(after, p, strict=True)]
            return (kept, total + jnp.where(index < full, value * len(bx), 0.0)), None

        length = xs.shape[0]
        start = (trained, jnp.zeros(()))
        unroll = max(1, min(length, _UNROLLED))
        (trained, total), _ = jax.lax.scan(body, start, (jnp.arange(length), xs, ys), unroll=unroll)
        if x.shape[0]:
            trained, value = step(trained, x, y)
            total = total + value * x.shape[0]
        return trained, total

    def _with_correction(self, p: Values, gradients: Values, correction: Any) -> Values:
        if correction is None:
            return gradients
        pull, anchors, offsets = correction
        made = dict(zip(self._trained, gradients, strict=True))
        values = dict(zip(self._trained, p, strict=True))
        for i, name in enumerate(self._anchored):
            made[name] = made[name] + pull * (values[name] - anchors[i])
            if offsets is not None:
                made[name] = made[name] + offsets[i]
        return list(made.values())

    # --- one client ----------------------------------------------------------------------------------

    def train(self, model: Arrays, ctx: Context) -> Update:
        """Train one client."""
        steps, data = self._steps, _data(ctx)
        size = len(data.x)
        trained, fixed = self._values(model)
        correction = self._correction(ctx)
        orders = steps.orders(ctx, size)
        total = 0.0
        for epoch in range(steps.epochs):
            order = None if orders is None else orders[epoch]
            batches = _batches(data, order, steps.batch, _rounded(size // steps.batch))
            trained, loss = self._one(trained, fixed, correction, batches, steps.rate(ctx.config))
            total += float(loss)
        arrays, block = side_by_side(self._out, 1)
        self._write(block, [np.asarray(t)[None] for t in trained], [model])
        return Update(model=arrays[0].freeze(), **made_of(total, size, steps))

    def _values(self, model: Arrays) -> tuple[Values, Values]:
        return [value_of(model, n) for n in self._trained], [value_of(model, n) for n in self._fixed]

    def _correction(self, ctx: Context) -> Any:
        """A client's correction as the computation takes it."""
        correction = ctx.correction
        if correction is None:
            return None
        anchors = [value_of(correction.anchor, n) for n in self._anchored]
        offset = correction.offset
        return correction.pull, anchors, None if offset is None else [value_of(offset, n) for n in self._anchored]

    def _corrections(self, contexts: Sequence[Context]) -> tuple[Any, Any]:
        """The corrections of a stack, and along which axes they are told apart."""
        given = [c for c in (ctx.correction for ctx in contexts) if c is not None]
        if not given:
            return None, None
        pulls = np.array([c.pull for c in given], np.float32)
        anchors, along = _side_by_side([c.anchor for c in given], self._anchored)
        if all(c.offset is None for c in given):
            return (pulls, anchors, None), (0, along, None)
        zeros = given[0].anchor.zeros()
        offsets, beside = _side_by_side([zeros if c.offset is None else c.offset for c in given], self._anchored)
        return (pulls, anchors, offsets), (0, along, beside)

    def _write(self, block: Array, trained: Sequence[Any], models: Sequence[Arrays]) -> None:
        """The values of a stack into the memory of its updates."""
        values = dict(zip(self._trained, trained, strict=True))
        for e in self._out.entries:
            place = block[:, e.offset : e.offset + e.nbytes].view(STORAGE[e.dtype]).reshape(len(block), *e.shape)
            if e.name in values:
                place[...] = np.asarray(values[e.name])[: len(block)].view(STORAGE[e.dtype])
            else:
                place[...] = np.stack([m.raw(e.name) for m in models])

    # --- many clients --------------------------------------------------------------------------------

    def train_many(self, models: Sequence[Arrays], contexts: Sequence[Context]) -> list[Update] | None:
        """The updates of a group; None where the clients are better trained one by one."""
        data = [_data(ctx) for ctx in contexts]
        if any(d.sample != data[0].sample for d in data) or not self._alike(models):
            return None
        width = width_of(sum(self.spec.by_name[n].nbytes for n in self._trained), [d.nbytes for d in data])
        if not width or not self._may(data[0], models[0]):
            return None
        batch = self._steps.batch
        order = sorted(range(len(data)), key=lambda k: (len(data[k].x) % batch, len(data[k].x), k))
        updates: dict[int, Update] = {}
        for rest in sorted({len(d.x) % batch for d in data}):
            mine = [k for k in order if len(data[k].x) % batch == rest]
            for part in parts(mine, [d.nbytes for d in data], width):
                chosen = [models[k] for k in part], [contexts[k] for k in part], [data[k] for k in part]
                updates.update(zip(part, self._train_stack(*chosen), strict=True))
        return [updates[k] for k in range(len(data))]

    def _train_stack(
        self, models: Sequence[Arrays], contexts: Sequence[Context], data: Sequence[_Data]
    ) -> list[Update]:
        steps, count = self._steps, len(data)
        wide = 1 << (count - 1).bit_length()
        filled = [*range(count), *[count - 1] * (wide - count)]
        same = all(m is models[0] for m in models)
        trained, fixed = self._values(models[0])
        if not same:
            trained = [jnp.stack([value_of(models[k], n) for k in filled]) for n in self._trained]
        correction, along = self._corrections([contexts[k] for k in filled])
        orders = [steps.orders(ctx, len(d.x)) for ctx, d in zip(contexts, data, strict=True)]
        length = _rounded(max(len(d.x) for d in data) // steps.batch)
        totals: Array = np.zeros(wide)
        rate = steps.rate(contexts[0].config)
        batches: Any = None
        for epoch in range(steps.epochs):
            if batches is None or steps.shuffle:
                each = [
                    _batches(d, None if o is None else o[epoch], steps.batch, length)
                    for d, o in zip(data, orders, strict=True)
                ]
                batches = tuple(np.stack([each[k][i] for k in filled]) for i in range(5))
            program = self._batched(None if same and epoch == 0 else 0, along)
            trained, losses = program(trained, fixed, correction, batches, rate)
            totals += np.asarray(losses)
        arrays, block = side_by_side(self._out, count)
        self._write(block, trained, models)
        sizes = [len(d.x) for d in data]
        return [
            Update(model=a.freeze(), **made_of(float(t), n, steps))
            for a, t, n in zip(arrays, totals, sizes, strict=False)
        ]

    def _batched(self, along: Any, terms: Any) -> Any:
        """The program for many; given are the axes of parameters and corrections, None where all have the same."""
        key = along, terms
        if key not in self._many:
            self._many[key] = jax.jit(jax.vmap(self._epoch, in_axes=(along, None, terms, 0, None)))
        return self._many[key]

    def _may(self, data: _Data, model: Arrays) -> bool:
        """Whether the loss may be stacked: convolutions are slower so on a CPU."""
        if data.sample not in self._stackable:
            self._stackable[data.sample] = jax.default_backend() != "cpu" or not self._convolves(data, model)
        return self._stackable[data.sample]

    def _convolves(self, data: _Data, model: Arrays) -> bool:
        trained, fixed = self._values(model)
        shapes = [
            jax.ShapeDtypeStruct((self._steps.batch, *a.shape[1:]), jnp.asarray(a[:0]).dtype) for a in (data.x, data.y)
        ]
        return "conv_general_dilated" in str(jax.make_jaxpr(self._value)(trained, fixed, *shapes))

    def _alike(self, models: Sequence[Arrays]) -> bool:
        first = models[0]
        return all(
            m is first
            or (m.spec == first.spec and all(m.raw(n).tobytes() == first.raw(n).tobytes() for n in self._fixed))
            for m in models
        )


def _side_by_side(of: Sequence[Arrays], names: Sequence[str]) -> tuple[Values, int | None]:
    """Entries of several clients' arrays as stacks, told apart along axis 0; once where all have one object."""
    if all(a is of[0] for a in of):
        return [value_of(of[0], n) for n in names], None
    return [jnp.stack([value_of(a, n) for a in of]) for n in names], 0


def _data(ctx: Context) -> _Data:
    x, y = (np.asarray(a) for a in pair(ctx))
    check_lengths(x, y)
    return _Data(x, y)


def _batches(data: _Data, order: Array | None, batch: int, length: int) -> tuple[Any, ...]:
    """Full batches, filled up to ``length`` of them; how many are full; and the last, shorter one."""
    full = len(data.x) // batch
    made: list[Array] = []
    rests: list[Array] = []
    for a in (data.x, data.y):
        ordered = a if order is None else a[order]
        shape = (length, batch, *a.shape[1:])
        if full == length:
            made.append(ordered[: full * batch].reshape(shape))
        else:
            filled = np.zeros(shape, a.dtype)
            filled[:full] = ordered[: full * batch].reshape(full, *shape[1:])
            made.append(filled)
        rests.append(ordered[full * batch :])
    return made[0], made[1], np.int32(full), rests[0], rests[1]


def _rounded(full: int) -> int:
    """A number of full batches, rounded up so that few lengths occur, and at most a quarter is too much."""
    if full <= _EXACT:
        return full
    unit = 1 << (full.bit_length() - 3)
    return -(-full // unit) * unit


def _nested(model: Arrays) -> Mapping[str, Any]:
    """Nested dicts with the model's names as paths."""
    tree: dict[str, Any] = {}
    for name in model:
        *path, last = name.split("/")
        place = tree
        for key in path:
            place = place.setdefault(key, {})
        e = model.spec.by_name[name]
        dtype = jnp.bfloat16 if e.dtype == "BF16" else STORAGE[e.dtype]
        place[last] = jax.ShapeDtypeStruct(e.shape, dtype)
    return tree


__all__ = ["Program"]
