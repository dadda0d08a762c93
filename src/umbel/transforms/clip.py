"""Clipping: no update is longer than a given norm."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from umbel.arrays import Arrays
from umbel.errors import UsageError
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
        if not (isinstance(self.norm, int | float) and 0 < self.norm < math.inf):
            raise UsageError(f"clip norm is {self.norm!r}", advice="give a finite number > 0")

    def client(self, update: Update, plan: Arrays | None, task: Task) -> Update:  # noqa: ARG002
        """Scale the update if it is longer than the bound."""
        length = update.arrays.norm()
        if length <= self.norm:
            return update
        return update.replace(_scaled(update.arrays, self.norm / length * _SHRINK))


def _scaled(arrays: Arrays, factor: float) -> Arrays:
    """Trained entries times a factor; the others as they are."""
    scaled = arrays.select(lambda e: e.role == "trained") * factor
    return Arrays.build(
        arrays.spec,
        lambda name, out: np.copyto(out, (scaled if name in scaled.spec.by_name else arrays).raw(name)),
    )


def clip(norm: float) -> Transform:
    """Scale each client's update down to an L2 norm of at most ``norm``.

    The norm is over the trained entries together, in float64; buffers are neither counted nor scaled.

    Args:
        norm: the bound, > 0, in units of the model's parameters.

    Raises:
        UsageError: norm is not a finite number > 0.

    Source: McMahan et al., Learning Differentially Private Recurrent Language Models, ICLR 2018, "FlatClip".
    https://arxiv.org/abs/1710.06963
    Differs: what is clipped is scaled by another 1 - 2^-21, so that float32 rounding cannot exceed the bound.
    """
    return Clip(norm)


__all__ = ["Clip", "clip"]
