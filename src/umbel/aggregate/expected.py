"""What an aggregator accepts, checked on the node before sending and on the server before folding."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import Literal, final, get_args

import numpy as np

from umbel.arrays import Array, Arrays
from umbel.bfloat16 import from_bfloat16
from umbel.elements import STRETCH, is_harmless
from umbel.errors import BadUpdate
from umbel.spec import FLOATS, Entry, Role, Spec, layout
from umbel.spread import in_parts
from umbel.update import Update

Shapes = Literal["equal", "slices", "free"]
FOLDED: frozenset[Role] = frozenset({"trained", "buffer"})
"""Roles of the entries of a model that come back and are summed; of the others the server's value stays."""
LEARNED: frozenset[Role] = FOLDED | {"local"}
"""Roles of the entries that training changes, somewhere."""
_HUGE = {"F64": 1e290}  # what a weighted element may come to; beyond it, sums over a cohort could overflow
_HUGE_F32 = 1e32


_CAST = {d: f"cast it back, for example with .astype(np.float{d[1:]})" for d in ("F64", "F32", "F16")} | {
    "BF16": "cast it back to bfloat16; where NumPy lacks that, return what changed: umbel.Update(delta=...) in float32"
}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What is accepted.

    Attributes:
        sent: names, dtypes and shapes of the model that was sent; None when a value is expected.
        shapes: "equal" to what was sent; "slices": each no longer than it along any axis; "free".
        optional: may entries be missing?
        max_bytes: bound on the size where shapes are free.
        finite: are NaN and infinity refused?
    """

    sent: Spec | None
    shapes: Shapes = "equal"
    optional: bool = False
    max_bytes: int = 4 << 30
    finite: bool = True

    def check(self, update: Update) -> None:
        """Refuse what does not fit.

        Raises:
            BadUpdate: names the entry that is wrong.
        """
        self.check_form(update)
        if self.finite:
            check_finite(update.arrays, update.weight)

    def check_form(self, update: Update) -> None:
        """Refuse what does not fit, without a look at the values of its elements.

        Raises:
            BadUpdate: names the entry that is wrong.
        """
        if self.sent is None:
            self._check_value(update)
        elif update.kind == "value":
            raise BadUpdate(
                "it returned a value, but a model is aggregated",
                advice="return umbel.Update(model=...) or (delta=...), or fold values with fed.query",
            )
        elif update.arrays.spec is not self.sent and update.arrays.spec != self.sent:
            self._check_entries(self.sent, update)

    def as_delta(self, sent: Arrays | None, update: Update) -> Update:
        """The update as the change of the model, in the precision of sums; values stay as they are."""
        if sent is None or update.kind == "value":
            return update
        kept = [e for e in sent.spec.entries if e.role in FOLDED and e.name in update.arrays.spec.by_name]
        shapes = {e.name: update.arrays.spec.by_name[e.name].shape for e in kept}
        spec = layout(Entry(e.name, "F64" if e.dtype == "F64" else "F32", shapes[e.name], e.role) for e in kept)

        def write(name: str, out: Array) -> None:
            mine = update.arrays[name]
            if update.kind == "delta":
                np.copyto(out, mine, casting="same_kind")
            else:
                corner = tuple(slice(0, n) for n in mine.shape)
                np.subtract(mine, sent[name][corner], out=out, dtype=out.dtype)

        with np.errstate(all="ignore"):
            return update.replace(Arrays.build(spec, write), kind="delta")

    def _check_value(self, update: Update) -> None:
        if update.kind != "value":
            raise BadUpdate(
                f"it returned a {update.kind}, but a value is aggregated", advice="return umbel.Update(value=...)"
            )
        if update.arrays.nbytes > self.max_bytes:
            raise BadUpdate(f"it returned {update.arrays.nbytes:,} bytes, at most {self.max_bytes:,} are accepted")

    def _check_entries(self, sent: Spec, update: Update) -> None:
        got = update.arrays.spec
        for e in got.entries:
            if e.name not in sent.by_name:
                raise BadUpdate(
                    f"entry {e.name!r} was not in the model that was sent",
                    entry=e.name,
                    advice="return the model's entries only; send other arrays as extra=",
                )
        for e in sent.entries:
            mine = got.by_name.get(e.name)
            if mine is None or e.role not in FOLDED:
                if e.role in FOLDED and not self.optional:
                    raise BadUpdate(
                        f"entry {e.name!r} is missing",
                        entry=e.name,
                        advice="return every trained entry, or send a model without it",
                    )
                continue
            self._check_entry(e, mine, update)

    def _check_entry(self, sent: Entry, got: Entry, update: Update) -> None:
        wide = {"F16": "F32", "BF16": "F32"}.get(sent.dtype, sent.dtype)
        if got.dtype not in ((sent.dtype, wide) if update.kind == "delta" else (sent.dtype,)):
            raise BadUpdate(
                f"entry {got.name!r} has dtype {got.dtype}, {sent.dtype} was sent",
                entry=got.name,
                advice=_CAST.get(sent.dtype, "give it the dtype that was sent"),
            )
        fits = got.shape == sent.shape
        if self.shapes == "slices" and len(got.shape) == len(sent.shape):
            fits = all(a <= b for a, b in zip(got.shape, sent.shape, strict=True))
        if self.shapes != "free" and not fits:
            raise BadUpdate(f"entry {got.name!r} has shape {got.shape}, {sent.shape} was sent", entry=got.name)


def check_finite(
    arrays: Arrays, weight: float = 1.0, *, bounded: bool = True, roles: Collection[Role] = get_args(Role)
) -> None:
    """Refuse NaN, infinity, and, if it is to be ``bounded``, what would overflow in the sum; of these roles.

    Looks at the largest magnitude of each block, which is NaN if any element is: a sum would let +x and -x pass.

    Raises:
        BadUpdate: names the entry, how many elements, and the first.
    """
    if arrays.harmless:  # it was looked at when it was made
        return
    looked_at = [run for run in arrays.spec.runs if run.dtype in FLOATS and run.role in roles]
    if all(run.size <= STRETCH and is_harmless(arrays.flat(run)) for run in looked_at):
        return
    for run in looked_at:
        most = _HUGE.get(run.dtype, _HUGE_F32) / max(1.0, weight) if bounded else float(np.finfo(np.float64).max)
        if not in_parts(run.size, partial(_are_within, arrays.flat(run), run.dtype, most)):
            _refuse(arrays, most, roles)


def _are_within(flat: Array, dtype: str, most: float, part: slice) -> bool:
    """Are these elements finite, and none larger than that?"""
    for i in range(part.start, part.stop, STRETCH):
        block = flat[i : min(i + STRETCH, part.stop)]
        block = from_bfloat16(block) if dtype == "BF16" else block
        if is_harmless(block):
            continue  # one look, and what it gives is small enough where nothing is wrong
        largest = float(np.maximum.reduce(block)), -float(np.minimum.reduce(block))
        if not (largest[0] <= most and largest[1] <= most):  # as floats: float16 would make infinity of most
            return False
    return True


def _refuse(arrays: Arrays, most: float, roles: Collection[Role]) -> None:
    for e in arrays.spec.entries:
        if e.dtype not in FLOATS or e.role not in roles:
            continue
        values: Array = np.atleast_1d(arrays[e.name] if e.role != "payload" else np.zeros(1))
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            at = tuple(int(i) for i in bad[0])
            raise BadUpdate(
                f"entry {e.name!r} is not finite: {len(bad)} of {e.size} elements, the first at {at} is {values[at]}",
                entry=e.name,
                advice="look for a too high learning rate, a division by zero, or an empty batch",
            )

    largest = max(arrays.spec.entries, key=lambda e: _largest(arrays, e))
    raise BadUpdate(
        f"entry {largest.name!r} is finite, but too large to be summed: up to {_largest(arrays, largest):.3g}; with "
        f"this weight, elements may come to {most:.3g}",
        entry=largest.name,
        advice="look for a too high learning rate, or a weight that is no number of examples",
    )


def _largest(arrays: Arrays, e: Entry) -> float:
    if e.dtype not in FLOATS or not e.size or e.role == "payload":
        return 0.0
    return float(np.max(np.abs(np.asarray(arrays[e.name], np.float64))))


__all__ = ["FOLDED", "LEARNED", "Expected", "Shapes", "check_finite"]
