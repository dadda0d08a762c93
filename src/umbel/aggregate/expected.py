"""What an aggregator accepts, checked on the node before sending and on the server before folding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from umbel.arrays import BLOCK, Array, Arrays, from_bfloat16
from umbel.errors import BadUpdate
from umbel.spec import FLOATS, Entry, Role, Spec
from umbel.update import Update

Shapes = Literal["equal", "slices", "free"]
RETURNED: frozenset[Role] = frozenset({"trained", "buffer", "payload"})
"""Roles of the entries of a model that a client sends back; of the others the server's value stays."""
FOLDED: frozenset[Role] = frozenset({"trained", "buffer"})
"""Roles of the entries of a model that are summed; they must come back."""


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
        if self.sent is None:
            self._check_value(update)
        elif update.kind == "value":
            raise BadUpdate(
                "it returned a value, but a model is aggregated",
                advice="return umbel.Update(model=...) or (delta=...), or fold values with fed.query",
            )
        elif update.arrays.spec is not self.sent and update.arrays.spec != self.sent:
            self._check_entries(self.sent, update)
        if self.finite:
            check_finite(update.arrays)
        for extra in update.extra.values():
            check_finite(extra)

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
            if mine is None or e.role not in RETURNED:
                if e.role in FOLDED and not self.optional:
                    raise BadUpdate(
                        f"entry {e.name!r} is missing",
                        entry=e.name,
                        advice="return every trained entry, or send a model without it",
                    )
                continue
            self._check_entry(e, mine, update)

    def _check_entry(self, sent: Entry, got: Entry, update: Update) -> None:
        if sent.role == "payload":
            return
        wide = {"F16": "F32", "BF16": "F32"}.get(sent.dtype, sent.dtype)
        if got.dtype not in ((sent.dtype, wide) if update.kind == "delta" else (sent.dtype,)):
            raise BadUpdate(
                f"entry {got.name!r} has dtype {got.dtype}, {sent.dtype} was sent",
                entry=got.name,
                advice="cast it back, for example with .astype(np.float32)",
            )
        fits = got.shape == sent.shape
        if self.shapes == "slices" and len(got.shape) == len(sent.shape):
            fits = all(a <= b for a, b in zip(got.shape, sent.shape, strict=True))
        if self.shapes != "free" and not fits:
            raise BadUpdate(f"entry {got.name!r} has shape {got.shape}, {sent.shape} was sent", entry=got.name)


def check_finite(arrays: Arrays) -> None:
    """Refuse NaN and infinity.

    A block's sum is finite only if each element is, unless finite elements overflow: then each is looked at.

    Raises:
        BadUpdate: names the entry, how many elements, and the first.
    """
    with np.errstate(all="ignore"):
        for run in arrays.spec.runs:
            if run.dtype not in FLOATS:
                continue
            flat = arrays.flat(run)
            for i in range(0, run.size, BLOCK):
                block = from_bfloat16(flat[i : i + BLOCK]) if run.dtype == "BF16" else flat[i : i + BLOCK]
                if not np.isfinite(np.add.reduce(block)) and not np.isfinite(block).all():
                    _refuse(arrays)


def _refuse(arrays: Arrays) -> None:
    for e in arrays.spec.entries:
        if e.dtype not in FLOATS:
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


__all__ = ["FOLDED", "RETURNED", "Expected", "Shapes", "check_finite"]
