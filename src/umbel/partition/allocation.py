"""Whole samples from shares: rounding, minimum sizes, and fitting two margins at once.

Everything here is integer tables of counts. Each function ends after a bounded number of steps,
uses every sample exactly once, and raises no warning for any input that the schemes let through.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from umbel.errors import UsageError
from umbel.partition.arguments import is_real, whole
from umbel.partition.labels import Labels
from umbel.partition.partition import Partition, from_owners

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


def apportion(weights: NDArray[Any], totals: Counts, rng: np.random.Generator | None = None) -> Counts:
    """Split each row's total into whole numbers in proportion to the row's weights.

    Largest remainder (Hamilton): every cell gets its quota rounded down, what is left goes one each
    to the cells with the largest fractions. Equal fractions are served in random order, or from the
    left without ``rng``. With integer weights the arithmetic is exact, and no cell with
    total <= sum of weights gets more than its weight.

    Args:
        weights: shape [rows, cells], >= 0, no row all zero; integers or float64.
        totals: shape [rows].
        rng: decides between equal fractions.
    """
    if weights.dtype.kind == "f":
        weights = weights / weights.max(axis=1, keepdims=True)  # so that the sum of huge weights stays finite
        quota = weights / weights.sum(axis=1, keepdims=True) * totals[:, None]
        counts: Counts = np.floor(quota).astype(np.int64)
        fraction: NDArray[Any] = quota - counts
    else:
        counts, fraction = np.divmod(weights * totals[:, None], weights.sum(axis=1, keepdims=True))
    left = totals - counts.sum(axis=1)
    if not left.any():
        return counts
    luck = rng.random(weights.shape) if rng else np.broadcast_to(np.arange(weights.shape[1]), weights.shape)
    order = np.lexsort((luck, -fraction), axis=-1)
    more = np.zeros_like(counts)
    np.put_along_axis(more, order, (np.arange(order.shape[1]) < left[:, None]).astype(np.int64), axis=1)
    return counts + more


def raise_minimum(counts: Counts, minimum: int, rng: np.random.Generator) -> Counts:
    """Move the fewest samples that give every client at least ``minimum``.

    The largest clients give: they are cut to a common size, one sample at a time from whoever is the
    largest. A giver keeps its mix of classes (it gives in proportion to it), a taker gets few classes
    (takers, in random order, are served from the given samples class by class). At most
    clients * minimum samples move, in one pass; nothing is drawn again.

    Args:
        counts: samples per class and client, shape [classes, clients].
        minimum: at most samples / clients.
        rng: orders the takers, and decides between equal claims.
    """
    gives, takes = _moves(counts.sum(axis=0), minimum)
    if not takes.any():
        return counts
    givers, takers = np.flatnonzero(gives), rng.permutation(np.flatnonzero(takes))
    given = apportion(counts[:, givers].T, gives[givers], rng).T
    counts = counts.copy()
    counts[:, givers] -= given
    counts[:, takers] += _serve(given.sum(axis=1), takes[takers])
    return counts


def _moves(sizes: Counts, minimum: int) -> tuple[Counts, Counts]:
    """What each client gives, always from the largest, and what each takes to have the minimum."""
    takes = np.maximum(minimum - sizes, 0)
    amount = int(takes.sum())
    low, high = 0, int(sizes.max())
    while low < high:  # the lowest level to which cutting takes no more than amount
        middle = (low + high) // 2
        low, high = (low, middle) if np.maximum(sizes - middle, 0).sum() <= amount else (middle + 1, high)
    gives = np.maximum(sizes - low, 0)
    at_level = np.flatnonzero(sizes >= low)
    gives[at_level[: amount - int(gives.sum())]] += 1
    return gives, takes


def _serve(supply: Counts, demand: Counts) -> Counts:
    """Serve demands in their order from supplies in theirs (north-west corner rule); sums are equal."""
    ends = np.unique(np.concatenate([np.cumsum(supply), np.cumsum(demand)]))
    ends = ends[ends > 0]
    table = np.zeros((supply.size, demand.size), np.int64)
    rows = np.searchsorted(np.cumsum(supply), ends)
    table[rows, np.searchsorted(np.cumsum(demand), ends)] = np.diff(ends, prepend=0)
    return table


def fit(affinity: Floats, supply: Counts, room: Counts, rng: np.random.Generator) -> Counts:
    """Split each row's supply in proportion to exp(affinity), with given column sums too.

    Every row offers what it has, to the columns that have room, in proportion. A column offered more
    than its room takes its part of each offer and is full; the rest is offered again. Proportions
    are taken in log space among the columns still open, so they exist however small they are.

    Args:
        affinity: log weights, finite, shape [rows, columns].
        supply: shape [rows].
        room: shape [columns]; the same sum as supply.
        rng: decides between equal claims.

    Cost: at most one pass per column, O(rows * columns) each; a few passes as a rule.
    """
    table = np.zeros(affinity.shape, np.int64)
    supply, room = supply.copy(), room.copy()
    while supply.any():
        rows, columns = np.flatnonzero(supply), np.flatnonzero(room)
        taken = apportion(proportions(affinity[np.ix_(rows, columns)]), supply[rows], rng)
        over = taken.sum(axis=0) > room[columns]
        taken[:, over] = apportion(taken[:, over].T, room[columns[over]], rng).T
        table[np.ix_(rows, columns)] += taken
        supply[rows] -= taken.sum(axis=1)
        room[columns] -= taken.sum(axis=0)
    return table


def proportions(logs: Floats) -> Floats:
    """Positive weights with these logarithms, the largest of a row being 1; no overflow, no NaN."""
    with np.errstate(under="ignore"):
        weights: Floats = np.exp(logs - logs.max(axis=1, keepdims=True))
    return weights


def client_sizes(total: int, names: tuple[str, ...], sizes: ArrayLike | None, minimum: int, *, what: str) -> Counts:
    """How much of ``total`` each client gets.

    Args:
        total: how many there are to give.
        names: the clients.
        sizes: integers that sum to ``total``, or real shares that are scaled to it; None: the same for
            all, the first clients one more where it does not divide.
        minimum: at least so many each; explicit integers are taken as they are.
        what: what is given out, for errors: "samples", "columns".
    """
    require(total, len(names), minimum, what=what)
    given = np.ones(len(names)) if sizes is None else np.asarray(sizes)
    if given.shape != (len(names),):
        raise UsageError(
            f"sizes has the shape {given.shape} for {len(names)} clients.", advice="Give one size per client."
        )
    if given.dtype.kind not in "iuf" or not np.isfinite(given).all() or (given < 0).any():
        wrong = next((at for at, size in enumerate(given.tolist()) if not (is_real(size) and size >= 0)), 0)
        raise UsageError(
            f"The size of client {names[wrong]!r} is {given[wrong]!r}.", advice="Sizes are finite numbers, 0 or more."
        )
    if given.dtype.kind in "iu":
        return _explicit(given.astype(np.int64), total, what)
    if not given.any():
        raise UsageError("All sizes are 0.", advice=f"Give shares of the {total} {what}, for example 0.7 and 0.3.")
    shared: Counts = apportion(given[None].astype(np.float64), np.array([total]))[0]
    gives, takes = _moves(shared, minimum)
    return shared - gives + takes


def _explicit(sizes: Counts, total: int, what: str) -> Counts:
    if (asked := int(sizes.sum())) != total:
        advice = f"Give sizes that sum to {total}, or shares (real numbers), which are scaled."
        if asked < total:
            advice += " To leave some out, add a client for them and drop it: parts[:-1]."
        raise UsageError(f"The sizes sum to {asked}, but there are {total} {what}.", advice=advice)
    return sizes


def require(total: int, clients: int, minimum: int, *, what: str) -> None:
    """Refuse a minimum that cannot be had."""
    whole(minimum, "min_size", least=0)
    if total < clients * minimum:
        most = total // max(minimum, 1)
        fewer = f"Ask for at most {most} clients, or set" if most else "Set"
        lower = f"{total // clients} or less" if total >= clients else "0, which allows empty clients"
        raise UsageError(
            f"{total} {what} cannot give {clients} clients at least {minimum} each: that takes {clients * minimum}.",
            advice=f"{fewer} min_size={lower}.",
        )


def deal(labels: Labels, counts: Counts, names: tuple[str, ...], rng: np.random.Generator) -> Partition:
    """The partition in which client j has ``counts[k, j]`` random samples of class k; all are dealt."""
    owners = np.empty(len(labels), np.int64)
    seats = np.broadcast_to(np.arange(len(names)), counts.shape)
    owners[labels.shuffled(rng)] = np.repeat(seats.ravel(), counts.ravel())
    return from_owners(owners, names)


__all__ = [
    "Counts",
    "Floats",
    "apportion",
    "client_sizes",
    "deal",
    "fit",
    "proportions",
    "raise_minimum",
    "require",
]
