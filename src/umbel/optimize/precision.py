"""In which layout and precision the server's step computes.

The step sees the trained entries of a model in *wide* precision: 16-bit floats as float32, float32 and float64 as
they are. What a step needs for this lies in up to four places: the model, the float32 master of its 16-bit
entries, the mean update, and the optimizer's own state. A `Piece` is a stretch that lies in one go in all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import final

import numpy as np

from umbel.arrays import Array, Arrays
from umbel.bfloat16 import from_bfloat16, to_bfloat16
from umbel.errors import EntryError
from umbel.spec import FLOATS, STORAGE, Entry, Spec, layout

_WIDE = {"F64": "F64", "F32": "F32", "F16": "F32", "BF16": "F32"}


@final
@dataclass(frozen=True, slots=True)
class Piece:
    """Neighbouring elements of the trained entries: where they lie, counted in bytes, and as what.

    Attributes:
        model, master, delta, wide: offsets; the master's is -1 where there is none.
        dtype: of the model.
        delta_dtype: of the mean update.
        wide_dtype: of the optimizer's state and of the computation.
        size: number of elements.
    """

    model: int
    master: int
    delta: int
    wide: int
    dtype: str
    delta_dtype: str
    wide_dtype: str
    size: int

    def continued(self, other: Piece) -> bool:
        """Does the other begin, in all places, where this one ends?"""
        return (
            (self.dtype, self.delta_dtype, self.wide_dtype) == (other.dtype, other.delta_dtype, other.wide_dtype)
            and self.model + self.size * STORAGE[self.dtype].itemsize == other.model
            and self.delta + self.size * STORAGE[self.delta_dtype].itemsize == other.delta
            and self.wide + self.size * STORAGE[self.wide_dtype].itemsize == other.wide
            and (self.master + self.size * STORAGE["F32"].itemsize == other.master or self.master == other.master == -1)
        )


@lru_cache(maxsize=128)
def wide_spec(model: Spec) -> Spec:
    """The trained entries in wide precision."""
    return _chosen(model, lambda e: e.role == "trained")


@lru_cache(maxsize=128)
def master_spec(model: Spec) -> Spec | None:
    """The trained entries that need a float32 master; None if there are none."""
    spec = _chosen(model, lambda e: e.role == "trained" and _WIDE[e.dtype] != e.dtype)
    return spec if spec.entries else None


def _chosen(spec: Spec, test: Callable[[Entry], bool]) -> Spec:
    kept = tuple(Entry(e.name, _WIDE[e.dtype], e.shape, e.role) for e in spec.entries if test(e))
    stored = {e.name for e in kept}
    aliases = {alias: target for alias, target in spec.aliases if target in stored}
    return layout(kept, aliases, names=tuple(n for n in spec.names if n in stored or n in aliases))


@lru_cache(maxsize=128)
def check_delta(model: Spec, delta: Spec) -> None:
    """Refuse an update that does not move every trained entry and buffer of the model, and nothing else.

    Raises:
        EntryError: names the entry.
    """
    for e in model.entries:
        if e.role not in ("trained", "buffer"):
            continue
        its = delta.by_name.get(e.name)
        if its is None or its.shape != e.shape or its.dtype not in FLOATS:
            raise EntryError(
                f"entry {e.name!r} is {e.describe()} in the model and {its.describe() if its else 'missing'} "
                "in the mean update",
                entry=e.name,
                advice="aggregate every trained entry and buffer, or give those that stay another role",
            )
    strange = next((n for n in delta.names if n not in model.by_name), None)
    if strange is not None:
        raise EntryError(f"entry {strange!r} of the mean update is not in the model", entry=strange)


@lru_cache(maxsize=128)
def pieces(model: Spec, delta: Spec, master: Spec | None) -> tuple[Piece, ...]:
    """The trained entries as the longest stretches that all places have in common."""
    found: list[Piece] = []
    for wide in sorted(wide_spec(model).entries, key=lambda e: e.offset):
        if not wide.size:
            continue
        mine, its = model.by_name[wide.name], delta.by_name[wide.name]
        kept = master.by_name.get(wide.name) if master else None
        place = kept.offset if kept else -1
        new = Piece(mine.offset, place, its.offset, wide.offset, mine.dtype, its.dtype, wide.dtype, wide.size)
        if found and found[-1].continued(new):
            last = found.pop()
            new = Piece(
                last.model, last.master, last.delta, last.wide, last.dtype, last.delta_dtype, last.wide_dtype,
                last.size + new.size,
            )  # fmt: skip
        found.append(new)
    return tuple(found)


def widened(stored: Array, dtype: str) -> Array:
    """Stored elements as numbers: 16-bit floats as float32; others as they are, not copied."""
    if dtype == "BF16":
        return from_bfloat16(stored)
    return stored.astype(np.float32) if dtype == "F16" else stored


def write(numbers: Array, dtype: str, out: Array) -> None:
    """Write numbers into stored elements, rounded to their precision."""
    np.copyto(out, to_bfloat16(numbers) if dtype == "BF16" else numbers, casting="same_kind")


def current(stored: Array, dtype: str, master: Array | None) -> Array:
    """What the model's elements are in wide precision.

    The master, where rounding it gives the model's element; elsewhere somebody changed the model since
    the last step, and the model counts.
    """
    numbers = widened(stored, dtype)
    if master is None:
        return numbers
    rounded = np.empty_like(stored)
    write(master, dtype, rounded)
    same = rounded.view(np.uint16) == stored.view(np.uint16)
    return master if same.all() else np.where(same, master, numbers)


def wide_model(model: Arrays, master: Arrays | None = None) -> Arrays:
    """The trained entries in wide precision; the model itself if that is what it is."""
    spec = wide_spec(model.spec)
    if spec == model.spec:
        return model

    def fill(name: str, out: Array) -> None:
        e = model.spec.by_name[name]
        kept = master.raw(name) if master is not None and name in master.spec.by_name else None
        np.copyto(out, current(model.raw(name), e.dtype, kept))

    return Arrays.build(spec, fill)


def wide_delta(delta: Arrays, spec: Spec) -> Arrays:
    """The mean update of the trained entries in wide precision; itself if that is what it is."""
    if delta.spec == spec:
        return delta

    def fill(name: str, out: Array) -> None:
        np.copyto(out, widened(delta.raw(name), delta.spec.by_name[name].dtype), casting="same_kind")

    return Arrays.build(spec, fill)


__all__ = [
    "Piece",
    "check_delta",
    "current",
    "master_spec",
    "pieces",
    "wide_delta",
    "wide_model",
    "wide_spec",
    "widened",
    "write",
]
