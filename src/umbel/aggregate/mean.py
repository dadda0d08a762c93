"""Means of updates: weighted or uniform, of whole models or of slices of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from umbel.aggregate.base import Aggregator, Summing
from umbel.aggregate.expected import Expected
from umbel.aggregate.weighted_sum import WeightedSum
from umbel.arrays import Array, Arrays
from umbel.errors import UsageError
from umbel.update import Update


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Mean(Summing):
    """The mean of the updates; see `mean`."""

    equal: bool = False
    result: ClassVar[str] = "mean"

    @property
    def uniform(self) -> bool:
        """Does every client count the same?"""
        return self.equal

    def weight(self, stated: float) -> float:
        """What the client states, or 1."""
        return 1.0 if self.equal else stated

    def weights(self, stated: Sequence[float]) -> Sequence[float]:
        """`weight` of each."""
        return [1.0] * len(stated) if self.equal else stated

    def finish(self, acc: WeightedSum) -> Arrays | None:
        """The sum over the sum of weights."""
        return acc.mean(acc.weight) if acc.total is not None and acc.weight > 0 else None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SliceMean(Aggregator):
    """The mean of each coordinate over the clients that returned it; see `mean`."""

    equal: bool = False
    result: ClassVar[str] = "mean"

    @property
    def uniform(self) -> bool:
        """Does every client count the same?"""
        return self.equal

    def expects(self, sent: Arrays | None) -> Expected:
        """Entries of the model, or leading slices of them."""
        if sent is None:
            raise UsageError(
                "mean(slices=True) averages slices of a model; a query returns values",
                advice="aggregate with umbel.aggregate.mean(), or use fed.train",
            )
        return Expected(sent=sent.spec, shapes="slices", optional=True)

    def init(self, sent: Arrays | None) -> tuple[WeightedSum, WeightedSum]:
        """An empty sum of updates and one of weights, coordinate by coordinate."""
        return WeightedSum.empty(sent), WeightedSum.empty(sent)

    def fold(
        self, acc: tuple[WeightedSum, WeightedSum], update: Update, sent: Arrays | None
    ) -> tuple[WeightedSum, WeightedSum]:
        """Add weight * update, and weight, where the update has coordinates."""
        total, weights = acc
        assert total.total is not None
        assert weights.total is not None
        weight = 1.0 if self.equal else update.weight
        sums, shares = total.writable(total.total.spec), weights.writable(weights.total.spec)
        for e in sums.spec.entries:
            if e.name not in update.arrays.spec.by_name:
                continue
            x: Array = update.arrays[e.name]
            corner = tuple(slice(0, n) for n in x.shape)
            if update.kind == "model" and sent is not None:
                x = np.subtract(x, sent[e.name][corner], dtype=sums.raw(e.name).dtype)
            with np.errstate(all="ignore"):
                sums.raw(e.name)[corner] += (x * weight).astype(sums.raw(e.name).dtype)
            shares.raw(e.name)[corner] += weight
        total.weight += weight
        total.count += 1
        return acc

    def merge(
        self, acc: tuple[WeightedSum, WeightedSum], later: tuple[WeightedSum, WeightedSum]
    ) -> tuple[WeightedSum, WeightedSum]:
        """Add the sums."""
        acc[0].merge(later[0])
        acc[1].merge(later[1])
        return acc

    def finish(self, acc: tuple[WeightedSum, WeightedSum]) -> Arrays | None:
        """Sum over weight; 0 where no client had the coordinate."""
        total, weights = acc
        if not total.weight > 0 or total.total is None or weights.total is None:
            return None
        sums, shares = total.total, weights.total

        def write(name: str, out: Array) -> None:
            share = shares.raw(name)
            out[...] = 0
            np.divide(sums.raw(name), share, out=out, where=share > 0)

        return Arrays.build(sums.spec, write)


def mean(*, uniform: bool = False, slices: bool = False) -> Aggregator:
    """The mean of the clients' updates.

    Of models, the mean of (model - sent) over trained entries and buffers, in float32 (float64 stays).
    Of values, the mean of each numeric entry.

    Args:
        uniform: every client counts the same, whatever weight it states.
        slices: clients may return leading slices of entries, or leave entries out (HeteroFL: Diao et al.,
            ICLR 2021, https://arxiv.org/abs/2010.01264); each coordinate is averaged over those who sent it.

    Source: McMahan et al., AISTATS 2017, Algorithm 1. https://arxiv.org/abs/1602.05629
    Differs: the mean is of updates, w + mean(w_k - w), which equals the mean of the w_k up to rounding.
    """
    return SliceMean(equal=uniform) if slices else Mean(equal=uniform)


__all__ = ["Mean", "SliceMean", "mean"]
