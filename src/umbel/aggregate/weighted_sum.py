"""A running weighted sum of arrays, block by block, with the subtraction of what was sent fused in.

16-bit floats are summed in float32, floats else in their own precision; integers in float64, or exactly in 64 bits.
The order of operations is a function of the order of the updates alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from operator import add
from typing import Any, final

import numpy as np

from umbel.aggregate.expected import FOLDED
from umbel.arrays import Array, Arrays
from umbel.bfloat16 import from_bfloat16
from umbel.elements import in_blocks
from umbel.errors import BadUpdate
from umbel.rows import Rows
from umbel.spec import FLOATS, STORAGE, Entry, Spec, aligned, layout
from umbel.spread import Elementwise, in_parts
from umbel.update import Update

_scratch: list[Array] = []  # not in use; new memory costs more than what is computed in it
_BLOCK = 1 << 16  # elements; with less, threads get into each other's way, with more, the cache is left


@final
@dataclass(frozen=True, slots=True)
class _Piece:
    """Neighbouring elements that lie side by side in the update, in what was sent and in the sum."""

    update: int
    sent: int
    total: int
    size: int
    dtype: str
    wide: str


@lru_cache(maxsize=256)
def sum_spec(spec: Spec, *, model: bool, exact: bool = False, double: bool = False) -> Spec:
    """The spec of a sum of such arrays.

    Args:
        spec: the spec of one summand.
        model: is it a model, of which only trained entries and buffers are summed? Else all but payloads are.
        exact: integers are summed in 64 bits, and not as float64.
        double: floats are summed in float64, whatever their dtype.
    """
    kept = [e for e in spec.entries if (e.role in FOLDED if model else e.role != "payload")]
    return layout(_summed(e, exact, double) for e in kept)


def _summed(e: Entry, exact: bool, double: bool) -> Entry:
    if e.dtype in FLOATS:
        return Entry(e.name, "F64" if double or e.dtype == "F64" else "F32", e.shape, e.role)
    if exact:
        return Entry(e.name, "U64" if e.dtype.startswith("U") else "I64", e.shape, e.role)
    return Entry(e.name, "F64", e.shape, "trained" if e.role == "counter" else e.role)


@lru_cache(maxsize=256)
def _pieces(update: Spec, sent: Spec | None, total: Spec) -> tuple[_Piece, ...]:
    """The longest common stretches of three layouts; the update's entries have their full shapes."""
    pieces: list[_Piece] = []
    for e in sorted(total.entries, key=lambda e: e.offset):
        mine = update.by_name.get(e.name)
        if mine is None or not e.size:
            continue
        assert mine.size == e.size, f"{e.name!r} is {mine.shape} in the update and {e.shape} in the sum"
        base = sent.by_name[e.name].offset if sent else 0
        new = _Piece(mine.offset, base, e.offset, e.size, mine.dtype, e.dtype)
        last = pieces[-1] if pieces else None
        if last and _adjoin(last, new, sent is not None):
            pieces[-1] = _Piece(last.update, last.sent, last.total, last.size + new.size, last.dtype, last.wide)
        else:
            pieces.append(new)
    return tuple(pieces)


def _adjoin(a: _Piece, b: _Piece, sent: bool) -> bool:
    width, wide = STORAGE[a.dtype].itemsize, STORAGE[a.wide].itemsize
    return (
        (a.dtype, a.wide) == (b.dtype, b.wide)
        and a.update + a.size * width == b.update
        and (not sent or a.sent + a.size * width == b.sent)
        and a.total + a.size * wide == b.total
    )


@final
@dataclass(slots=True, eq=False, kw_only=True)
class WeightedSum:
    """The sum of weight * (update - sent), and of the weights.

    Attributes:
        model: is it a sum of models?
        exact: are integers of values summed exactly in 64 bits?
        weight: the sum of the weights.
        count: the number of summands.
    """

    model: bool
    exact: bool = False
    weight: float = 0.0
    count: int = 0
    _total: Arrays | None = None
    _cleared: bool = True  # else there is anything in the total's memory: the first summand is written over it

    @classmethod
    def empty(cls, sent: Arrays | None, *, exact: bool = False, double: bool = False) -> WeightedSum:
        """The sum of nothing.

        Args:
            sent: the model whose updates are summed; None for values.
            exact: sum integers of values exactly in 64 bits.
            double: sum floats of models in float64, whatever their dtype.
        """
        if sent is None:
            return cls(model=False, exact=exact)
        total = Arrays.blank(sum_spec(sent.spec, model=True, double=double))
        return cls(model=True, exact=exact, _total=total, _cleared=False)

    @property
    def total(self) -> Arrays | None:
        """The sum so far, writable; None before the first value, whose spec it takes."""
        if not self._cleared:
            assert self._total is not None
            _clear(self._total)
            self._cleared = True
        return self._total

    @total.setter
    def total(self, total: Arrays | None) -> None:
        self._total, self._cleared = total, True

    def __getstate__(self) -> tuple[Any, ...]:
        return self.model, self.exact, self.weight, self.count, self.total

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.model, self.exact, self.weight, self.count, self.total = state

    def admit(self, update: Update) -> None:
        """Refuse a value that has no sum, or other entries or shapes than the values before it.

        Raises:
            BadUpdate: names the entry.
        """
        opaque = next((e.name for e in update.arrays.spec.entries if e.role == "payload"), None)
        if opaque is not None and not self.model:
            raise BadUpdate(
                f"entry {opaque!r} is bytes, which have no sum and no mean",
                entry=opaque,
                advice="ask with aggregator=umbel.aggregate.concat(), which joins them",
            )
        if not self.model and self.total is not None:
            _check_same(self.total.spec, update.arrays.spec, self.exact)

    def add(self, update: Update, sent: Arrays | None, weight: float) -> None:
        """Add one update, in place; it was admitted. A model has ``sent`` subtracted from it."""
        self.add_rows(Rows.over([update]), sent, [weight])

    def add_rows(self, rows: Rows, sent: Arrays | None, weights: Sequence[float]) -> None:
        """Add some updates of one kind and one spec, in turn.

        Several are added in one go, for the same sum to the bit: small ones as one matrix, of large ones a block of
        each while that block of the sum is in the cache.
        """
        if not len(rows):
            return
        base = sent if rows.kind == "model" else None
        if len(rows) > 1 and rows.are_small:
            total = self.writable(rows.spec)
            found = _pieces(rows.spec, base.spec if base is not None else None, total.spec)
            matrix, each = np.asarray(rows.values), np.array(weights, np.float64)
            with np.errstate(all="ignore"):
                for piece in found:
                    _add_matrix(piece, matrix, base, total, each)
        else:
            self._add_large(rows, base, weights)
        self.weight = reduce(add, weights, self.weight)
        self.count += len(rows)

    def _add_large(self, rows: Rows, base: Arrays | None, weights: Sequence[float]) -> None:
        blank = None if self._cleared else self._total
        total = self.writable(rows.spec) if blank is None else blank
        found = _pieces(rows.spec, base.spec if base is not None else None, total.spec)
        first = blank is not None and sum(p.size for p in found) == sum(e.size for e in total.spec.entries)
        if blank is not None and not first:  # there are entries that the update has not
            _clear(total)
        for piece in found:
            _add_piece(piece, rows.values, base, total, weights, first=first)
        self._cleared = True

    def add_shards(self, rows: Rows, sent: Arrays | None, weights: Sequence[float], size: int) -> None:
        """Add some small updates in shards: the same to the bit as if each shard had a sum and those were merged.

        Args:
            rows: the updates.
            sent: what is subtracted from models.
            weights: of each.
            size: of a shard; the number of updates is a multiple of it.
        """
        total = self.writable(rows.spec)
        base = sent if rows.kind == "model" else None
        matrix, each = np.asarray(rows.values), np.array(weights, np.float64)
        with np.errstate(all="ignore"):
            for piece in _pieces(rows.spec, base.spec if base is not None else None, total.spec):
                terms = _terms(piece, matrix, base, each).reshape(-1, size, piece.size)
                out = total.stretch(piece.total, piece.size, piece.wide)
                out[...] = _summed_up(out, _summed_up(np.zeros((len(terms), piece.size), out.dtype), terms, axis=1))
        self.weight = reduce(add, np.add.accumulate(each.reshape(-1, size), 1)[:, -1].tolist(), self.weight)
        self.count += len(rows)

    def merge(self, later: WeightedSum) -> None:
        """Add another sum, in place."""
        if later.total is not None:
            total = self.writable(later.total.spec)
            for run in total.spec.runs:
                _add_to(total.flat(run), later.total.flat(run))
        self.weight += later.weight
        self.count += later.count

    def writable(self, spec: Spec) -> Arrays:
        """The total; made for values of this spec, and a copy if someone froze it, as reading it from bytes does."""
        if self.total is None:
            self.total = _zeros(sum_spec(spec, model=False, exact=self.exact))
        elif not self.total.writable:
            self.total = self.total.thawed()
        return self.total

    def mean(self, by: float) -> Arrays:
        """The total divided by a number, made where the total lies if nobody else looks at it.

        From then on this is the sum of that mean alone, with a weight of 1.
        """
        assert self.total is not None
        spec = _mean_spec(self.total.spec)
        out = self.total if self.total.writable and spec == self.total.spec else Arrays.blank(spec)
        self.total, self.weight, self.count = _divide(self.total, by, out), 1.0, 1
        return self.total


def divided(total: Arrays, by: float) -> Arrays:
    """Each entry divided by a number; integers become float64."""
    return _divide(total, by, Arrays.blank(_mean_spec(total.spec)))


@lru_cache(maxsize=256)
def _mean_spec(total: Spec) -> Spec:
    return layout(
        Entry(e.name, e.dtype, e.shape, e.role) if e.dtype in FLOATS else Entry(e.name, "F64", e.shape, "trained")
        for e in total.entries
    )


def _divide(total: Arrays, by: float, out: Arrays) -> Arrays:
    def divide_piece(piece: _Piece) -> bool:
        values = total.stretch(piece.update, piece.size, piece.dtype)
        means = out.stretch(piece.total, piece.size, piece.wide)
        return in_parts(piece.size, Elementwise(_divide_stretch, means, [values], {"by": by}))

    looked = [divide_piece(piece) for piece in _pieces(total.spec, None, out.spec)]
    out.harmless = all(looked)
    return out.freeze()


def _divide_stretch(out: Array, values: Array, *, by: float) -> bool:
    """Write values / by. Is all that was written harmless?"""

    def divide(block: Array, values: Array) -> None:
        np.true_divide(values, by, out=block, dtype=block.dtype)

    return in_blocks(divide, out, values)


def _zeros(spec: Spec) -> Arrays:
    made = Arrays.blank(spec)
    _clear(made)
    return made


def _clear(arrays: Arrays) -> None:
    for run in arrays.spec.runs:
        _fill_with_zeros(arrays.flat(run))


def _fill_with_zeros(flat: Array) -> None:
    in_parts(len(flat), Elementwise(np.copyto, flat, options={"src": 0}))


def _add_to(mine: Array, its: Array) -> None:
    in_parts(len(mine), Elementwise(_add_in_place, mine, [its]))


def _add_in_place(out: Array, values: Array) -> None:
    np.add(out, values, out=out)


def _add_piece(
    piece: _Piece,
    rows: Sequence[Array] | Array,
    sent: Arrays | None,
    total: Arrays,
    weights: Sequence[float],
    *,
    first: bool,
) -> None:
    storage = STORAGE[piece.dtype]
    xs = [row[piece.update : piece.update + piece.size * storage.itemsize].view(storage) for row in rows]
    base = sent.stretch(piece.sent, piece.size, piece.dtype) if sent is not None else None
    out = total.stretch(piece.total, piece.size, piece.wide)
    ws = [out.dtype.type(weight) for weight in weights]

    options = {"ws": ws, "dtype": piece.dtype, "subtract": base is not None, "first": first}
    in_parts(piece.size, Elementwise(_add_stretch, out, [*([base] if base is not None else []), *xs], options))


def _add_stretch(out: Array, *inputs: Array, ws: Sequence[Any], dtype: str, subtract: bool, first: bool) -> None:
    """``out += w * (x - base)`` for each x, in blocks that stay in the cache.

    Args:
        out: the sum.
        inputs: base, if it is subtracted, and each x.
        ws: of each x.
        dtype: of the inputs, as it is stored.
        subtract: is there a base?
        first: as if out were zero before.
    """
    base, xs = (inputs[0], inputs[1:]) if subtract else (None, inputs)
    try:
        scratch = _scratch.pop()
    except IndexError:
        scratch = aligned(8 * _BLOCK)  # aligned: else NumPy takes longer
    wide = scratch.view(out.dtype)
    for begin in range(0, len(out), _BLOCK):
        s = slice(begin, begin + _BLOCK)
        total = out[s]
        block = wide[: len(total)]
        sent = _wide(base[s], dtype) if base is not None else None
        before = out.dtype.type(0) if first else total  # a sum, too, so that -0.0 becomes 0.0 as it does when added
        for x, w in zip(xs, ws, strict=True):
            if sent is None:
                np.multiply(_wide(x[s], dtype), w, out=block, dtype=out.dtype)
            else:
                np.subtract(_wide(x[s], dtype), sent, out=block, dtype=out.dtype)
                if w != 1:
                    np.multiply(block, w, out=block)
            np.add(before, block, out=total)
            before = total
    _scratch.append(scratch)


def _add_matrix(piece: _Piece, rows: Array, sent: Arrays | None, total: Arrays, weights: Array) -> None:
    """Add one piece of each row, from the first row to the last."""
    out = total.stretch(piece.total, piece.size, piece.wide)
    out[...] = _summed_up(out, _terms(piece, rows, sent, weights))


def _terms(piece: _Piece, rows: Array, sent: Arrays | None, weights: Array) -> Array:
    """``w * (x - base)`` of one piece, for each row."""
    storage, wide = STORAGE[piece.dtype], STORAGE[piece.wide]
    x = _wide(rows[:, piece.update : piece.update + piece.size * storage.itemsize].view(storage), piece.dtype)
    w = weights.astype(wide)[:, None]
    terms: Array = np.empty(x.shape, wide)
    if sent is None:
        np.multiply(x, w, out=terms, dtype=wide)
    else:
        base = _wide(sent.stretch(piece.sent, piece.size, piece.dtype), piece.dtype)
        np.subtract(x, base, out=terms, dtype=wide)
        np.multiply(terms, w, out=terms)
    return terms


def _summed_up(first: Array, terms: Array, axis: int = 0) -> Array:
    """What comes out when terms are added one after the other along an axis; NumPy's own sum has another order."""
    both = np.concatenate([np.expand_dims(first, axis), terms], axis)
    last: Array = np.add.accumulate(both, axis).take(-1, axis)
    return last


def _wide(block: Array, dtype: str) -> Array:
    return from_bfloat16(block) if dtype == "BF16" else block


def _check_same(total: Spec, got: Spec, exact: bool) -> None:
    expected = sum_spec(got, model=False, exact=exact)
    for e in total.entries:
        mine = expected.by_name.get(e.name)
        if mine is None or (mine.shape, mine.dtype) != (e.shape, e.dtype):
            shown = f"{got.by_name[e.name].dtype} {mine.shape}" if mine else "missing"
            raise BadUpdate(
                f"entry {e.name!r} is {shown}, the clients before it returned {e.dtype} {e.shape}",
                entry=e.name,
                advice="every client of a cohort returns values of the same names and shapes",
            )
    extra = next((e.name for e in got.entries if e.name not in total.by_name), None)
    if extra is not None:
        raise BadUpdate(f"entry {extra!r} was not in the values of the clients before it", entry=extra)


__all__ = ["WeightedSum", "divided", "sum_spec"]
