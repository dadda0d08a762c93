"""A running weighted sum of arrays, block by block, with the subtraction of what was sent fused in.

16-bit floats are summed in float32, integers exactly in 64 bits, everything else in its own precision.
The order of operations is a function of the order of the updates alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import final

import numpy as np

from umbel.aggregate.expected import FOLDED
from umbel.arrays import BLOCK, Array, Arrays, from_bfloat16
from umbel.errors import BadUpdate
from umbel.spec import FLOATS, STORAGE, Entry, Spec, layout
from umbel.update import Update

_WIDE = {"F16": "F32", "BF16": "F32", "I32": "I64", "I16": "I64", "I8": "I64", "BOOL": "I64"} | {
    "U32": "U64",
    "U16": "U64",
    "U8": "U64",
}


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


def sum_spec(spec: Spec, *, model: bool, double: bool = False) -> Spec:
    """The spec of a sum of such arrays.

    Args:
        spec: the spec of one summand.
        model: is it a model, of which only trained entries and buffers are summed? Else all but payloads are.
        double: floats are summed in float64, whatever their dtype.
    """
    kept = [e for e in spec.entries if (e.role in FOLDED if model else e.role != "payload")]
    return layout(
        Entry(e.name, "F64" if double and e.dtype in FLOATS else _WIDE.get(e.dtype, e.dtype), e.shape, e.role)
        for e in kept
    )


@lru_cache(maxsize=256)
def _pieces(update: Spec, sent: Spec | None, total: Spec) -> tuple[_Piece, ...]:
    """The longest common stretches of three layouts; the update's entries have their full shapes."""
    pieces: list[_Piece] = []
    for e in sorted(total.entries, key=lambda e: e.offset):
        mine = update.by_name.get(e.name)
        if mine is None or not e.size:
            continue
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
class WeightedSum:
    """The sum of weight * (update - sent), and of the weights.

    Args:
        sent: the model that was sent; None for values.
        double: sum models in float64, whatever their dtype.

    Attributes:
        sent: what is subtracted from a returned model.
        total: the sum so far, writable; None before the first value, whose spec it takes.
        weight: the sum of the weights.
        count: the number of summands.
    """

    __slots__ = ("count", "model", "sent", "total", "weight")

    def __init__(self, sent: Arrays | None, *, double: bool = False) -> None:
        self.sent, self.model = sent, sent is not None
        self.weight, self.count = 0.0, 0
        self.total: Arrays | None = None
        if sent is not None:
            self.total = _zeros(sum_spec(sent.spec, model=True, double=double))

    def admit(self, update: Update) -> None:
        """Refuse a value that has other entries or shapes than the values before it.

        Raises:
            BadUpdate: names the entry.
        """
        if self.total is not None and not self.model:
            _check_same(self.total.spec, update.arrays.spec)

    def add(self, update: Update, weight: float) -> None:
        """Add one update, in place; it was admitted."""
        if self.total is None:
            self.total = _zeros(sum_spec(update.arrays.spec, model=False))
        sent = self.sent if update.kind == "model" else None
        spec = sent.spec if sent is not None else None
        with np.errstate(all="ignore"):
            for piece in _pieces(update.arrays.spec, spec, self.total.spec):
                _add_piece(piece, update.arrays, sent, self.total, weight)
        self.weight += weight
        self.count += 1

    def merge(self, later: WeightedSum) -> None:
        """Add another sum, in place."""
        if later.total is not None:
            if self.total is None:
                self.total = _zeros(later.total.spec)
            _check_same(self.total.spec, later.total.spec)
            with np.errstate(all="ignore"):
                for run in self.total.spec.runs:
                    mine = self.total.flat(run)
                    np.add(mine, later.total.flat(run), out=mine)
        self.weight += later.weight
        self.count += later.count

    def divided(self, by: float) -> Arrays:
        """The sum divided by a number; integers become float64."""
        assert self.total is not None
        return divided(self.total, by)


def divided(total: Arrays, by: float) -> Arrays:
    """Each entry divided by a number; integers become float64."""
    wanted = [
        Entry(e.name, e.dtype, e.shape, e.role) if e.dtype in FLOATS else Entry(e.name, "F64", e.shape, "trained")
        for e in total.spec.entries
    ]
    with np.errstate(all="ignore"):
        return Arrays.build(layout(wanted), lambda n, out: np.true_divide(total.raw(n), by, out=out, dtype=out.dtype))


def blocks(size: int) -> Iterator[slice]:
    """Slices of at most BLOCK elements."""
    for begin in range(0, size, BLOCK):
        yield slice(begin, min(begin + BLOCK, size))


def _zeros(spec: Spec) -> Arrays:
    made = Arrays.blank(spec)
    for run in spec.runs:
        made.flat(run)[:] = 0
    return made


def _add_piece(piece: _Piece, update: Arrays, sent: Arrays | None, total: Arrays, weight: float) -> None:
    mine = update.stretch(piece.update, piece.size, piece.dtype)
    base = sent.stretch(piece.sent, piece.size, piece.dtype) if sent is not None else None
    out = total.stretch(piece.total, piece.size, piece.wide)
    w = out.dtype.type(weight)
    scratch = np.empty(min(BLOCK, piece.size), out.dtype)
    for s in blocks(piece.size):
        block = scratch[: s.stop - s.start]
        x = _wide(mine[s], piece.dtype)
        if base is not None:
            np.subtract(x, _wide(base[s], piece.dtype), out=block, dtype=out.dtype)
            np.multiply(block, w, out=block)
        else:
            np.multiply(x, w, out=block, dtype=out.dtype)
        np.add(out[s], block, out=out[s])


def _wide(block: Array, dtype: str) -> Array:
    return from_bfloat16(block) if dtype == "BF16" else block


def _check_same(total: Spec, got: Spec) -> None:
    for e in total.entries:
        mine = got.by_name.get(e.name)
        if mine is None or mine.shape != e.shape or _WIDE.get(mine.dtype, mine.dtype) != e.dtype:
            shape = f"{mine.dtype} {mine.shape}" if mine else "missing"
            raise BadUpdate(
                f"entry {e.name!r} is {shape}, the clients before it returned {e.dtype} {e.shape}",
                entry=e.name,
                advice="every client of a cohort returns values of the same names and shapes",
            )
    extra = next((e.name for e in got.entries if e.name not in total.by_name and e.role != "payload"), None)
    if extra is not None:
        raise BadUpdate(f"entry {extra!r} was not in the values of the clients before it", entry=extra)


__all__ = ["WeightedSum", "blocks", "divided", "sum_spec"]
