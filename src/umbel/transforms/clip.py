"""Clipping: no update is longer than a given norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from umbel.arguments import number
from umbel.arrays import Array, Arrays
from umbel.bfloat16 import from_bfloat16, to_bfloat16
from umbel.transforms.base import Task, Trait, Transform
from umbel.update import Update

_SHRINK = 1 - 2**-21  # keeps the norm below the bound after each element was rounded to float32


@final
@dataclass(frozen=True, slots=True)
class Clip(Transform):
    """Scales updates down to an L2 norm; see `clip`."""

    norm: float
    gives: ClassVar[frozenset[Trait]] = frozenset({"bounded"})

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", number(self.norm, "clip norm", above=0))

    def client(self, update: Update, plan: Arrays | None, task: Task) -> Update:  # noqa: ARG002
        """Scale the update if it is longer than the bound."""
        length = update.arrays.norm()
        if length <= self.norm:
            return update
        return update.replace(_scaled(update.arrays, self.norm / length * _SHRINK))


def _scaled(arrays: Arrays, factor: float) -> Arrays:
    """Trained entries times a factor; the others as they are."""

    def write(name: str, out: Array) -> None:
        e = arrays.spec.by_name[name]
        if e.role != "trained":
            np.copyto(out, arrays.raw(name))
        elif e.dtype in ("F64", "F32"):
            np.multiply(arrays.raw(name), factor, out=out, dtype=np.float64, casting="same_kind")
        else:
            _shorten(arrays[name].astype(np.float64) * factor, e.dtype, out)

    return Arrays.build(arrays.spec, write)


def _shorten(exact: Array, dtype: str, out: Array) -> None:
    """Write numbers as 16-bit floats, rounded towards zero: rounding up could exceed the bound by 2^-8."""
    np.copyto(out, to_bfloat16(exact.astype(np.float32)).reshape(out.shape) if dtype == "BF16" else exact, "same_kind")
    longer = np.abs(from_bfloat16(out) if dtype == "BF16" else out) > np.abs(exact)
    bits = out.view("<u2")
    np.subtract(bits, longer, out=bits, casting="unsafe")  # one step towards zero


def clip(norm: float) -> Transform:
    """Scale each client's update down to an L2 norm of at most ``norm``.

    The norm is over the trained entries together, in float64; buffers are neither counted nor scaled.

    Args:
        norm: the bound, > 0, in units of the model's parameters.

    Raises:
        UsageError: norm is not a finite number > 0.

    Source: McMahan et al., Learning Differentially Private Recurrent Language Models, ICLR 2018, "FlatClip".
    https://arxiv.org/abs/1710.06963
    Differs: what is clipped is scaled by another 1 - 2^-21, so that float32 rounding cannot exceed the bound; 16-bit
    values are rounded towards zero.
    """
    return Clip(norm)


__all__ = ["Clip", "clip"]
