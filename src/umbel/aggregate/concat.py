"""Joining what clients return end to end: trees, lists of candidates, rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import numpy as np

from umbel.aggregate.base import Aggregator
from umbel.aggregate.expected import Expected
from umbel.arrays import Array, Arrays
from umbel.errors import BadUpdate, UsageError
from umbel.spec import Entry, layout
from umbel.update import Update

SIZES = ".sizes"


@final
@dataclass(slots=True)
class Parts:
    """What was folded so far, in cohort order."""

    arrays: list[Arrays] = field(default_factory=list)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Concat(Aggregator):
    """Values joined end to end; see `concat`."""

    max_bytes: int
    result: ClassVar[str] = "concat"

    def expects(self, sent: Arrays | None) -> Expected:  # noqa: ARG002  # values are joined, whatever was sent
        """Any values up to the bound."""
        return Expected(sent=None, shapes="free", max_bytes=self.max_bytes)

    def init(self, sent: Arrays | None) -> Parts:  # noqa: ARG002
        """Nothing."""
        return Parts()

    def admit(self, acc: Parts, update: Update) -> None:
        """Values need the names and dtypes of those before them."""
        _check_joins(acc.arrays[0] if acc.arrays else update.arrays, update.arrays)

    def fold(self, acc: Parts, update: Update, sent: Arrays | None) -> Parts:  # noqa: ARG002
        """Put the update's value behind the others."""
        acc.arrays.append(update.arrays)
        return acc

    def merge(self, acc: Parts, later: Parts) -> Parts:
        """Put the later parts behind."""
        if acc.arrays and later.arrays:
            _check_joins(acc.arrays[0], later.arrays[0])
        acc.arrays.extend(later.arrays)
        return acc

    def finish(self, acc: Parts) -> Arrays | None:
        """Each entry joined, and beside it the sizes of the parts."""
        if not acc.arrays:
            return None
        wanted: list[Entry] = []
        for e in acc.arrays[0].spec.entries:
            lengths = [_rows(a, e.name).shape[0] for a in acc.arrays]
            wanted.append(Entry(e.name, e.dtype, (int(np.sum(lengths)), *e.shape[1:]), e.role))
            wanted.append(Entry(e.name + SIZES, "I64", (len(lengths),), "counter"))

        def write(name: str, out: Any) -> None:
            if name.endswith(SIZES) and name not in acc.arrays[0].spec.by_name:
                out[:] = [_rows(a, name.removesuffix(SIZES)).shape[0] for a in acc.arrays]
            else:
                np.concatenate([_rows(a, name) for a in acc.arrays], out=out)

        return Arrays.build(layout(wanted), write)


def _rows(arrays: Arrays, name: str) -> Array:
    """An entry as an array with a first axis; a number is a row."""
    return np.atleast_1d(arrays.raw(name))


def _check_joins(first: Arrays, other: Arrays) -> None:
    for name in (*first.spec.by_name, *other.spec.by_name):
        a, b = first.spec.by_name.get(name), other.spec.by_name.get(name)
        if a is None or b is None or (a.dtype, a.shape[1:]) != (b.dtype, b.shape[1:]):
            raise BadUpdate(
                f"entry {name!r} is {b.describe() if b else 'missing'}, others are {a.describe() if a else 'missing'}",
                entry=name,
                advice="values to be joined need the same names and dtypes, and the same shape but for the first axis",
            )


def concat(*, max_bytes: int = 256 << 20) -> Aggregator:
    """Join the clients' values end to end, in cohort order.

    Bytes are joined, arrays along their first axis; numbers become the elements of a vector.

    Beside each entry the result holds its parts' lengths as "<entry>.sizes"; `split` takes it apart again.

    Args:
        max_bytes: bound on what one client may return.

    Cost: memory grows with the cohort.
    """
    return Concat(max_bytes=max_bytes)


def split(joined: Arrays, entry: str) -> list[Any]:
    """The parts of one entry of a `concat`, in cohort order.

    Args:
        joined: the result of `concat`.
        entry: the entry's name.

    Returns:
        Bytes for a payload, else arrays.

    Raises:
        UsageError: there is no such entry, or it was not joined.
    """
    if entry not in joined or entry + SIZES not in joined:
        names = [name for name in joined if name + SIZES in joined]
        advice = f"the result of concat() has {', '.join(names)}" if names else "give it the result of concat()"
        raise UsageError(f"there is no joined entry {entry!r}", advice=advice)
    ends = np.cumsum(joined[entry + SIZES])
    whole = joined[entry]
    return [whole[end - size : end] for end, size in zip(ends, joined[entry + SIZES], strict=True)]


__all__ = ["Concat", "concat", "split"]
