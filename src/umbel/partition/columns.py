"""Clients that hold different columns of the same samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set

import numpy as np
from numpy.typing import ArrayLike

from umbel.errors import UsageError
from umbel.partition.allocation import client_sizes
from umbel.partition.arguments import Clients, client_names, generator, is_whole, listed
from umbel.partition.partition import Indexes, Partition


def vertical(
    columns: int | Sequence[str],
    *,
    clients: Clients,
    sizes: ArrayLike | None = None,
    shared: Sequence[int] | Sequence[str] = (),
    shuffle: bool = True,
    seed: int = 0,
) -> Partition:
    """A vertical split: every client has all samples, but only some of their columns.

    ``table[:, parts["bank"]]`` are a client's columns. For a split by hand use ``Partition`` itself.

    Args:
        columns: how many columns there are, or their names.
        clients: how many clients, or their names.
        sizes: columns per client besides the shared ones: integers that sum to their number, or real
            shares; None: all the same.
        shared: columns that every client has, such as a key: names if ``columns`` are names, else indexes.
        shuffle: whether columns go to clients at random, or in their order (the first ones to the first).
        seed: any integer >= 0.

    Returns:
        A partition of column indexes, with the shared ones in ``.shared``.

    Raises:
        UsageError: an unknown or doubled column, fewer columns than clients.
    """
    names = client_names(clients)
    total, common = _shared(columns, shared)
    own = np.setdiff1d(np.arange(total), common)
    if own.size < len(names) and not common.size and sizes is None:
        raise UsageError(
            f"{total} columns cannot give {len(names)} clients one each.",
            advice=f"Ask for at most {total} clients, or share columns with shared=.",
        )
    each = client_sizes(own.size, names, sizes, 0, what="columns")
    order = generator(seed, "vertical").permutation(own) if shuffle else own
    return Partition(np.split(order, np.cumsum(each)[:-1]), names, shared=common)


def _shared(columns: int | Sequence[str], shared: Sequence[int] | Sequence[str]) -> tuple[int, Indexes]:
    """How many columns there are, and the indexes of the shared ones."""
    known = {column: at for at, column in enumerate(_columns(columns))}
    wanted: list[object] = [shared] if isinstance(shared, str) else list(shared)
    unknown = [column for column in wanted if column not in known]
    if unknown:
        raise UsageError(
            f"There is no column {unknown[0]!r} to share; the columns are {listed(known)}.",
            advice="Name shared columns as in columns=, or by index if that is a number.",
        )
    return len(known), np.array(sorted({known[column] for column in wanted}), np.int64)


def _columns(columns: object) -> Sequence[object]:
    if isinstance(columns, int | np.integer) and is_whole(columns) and columns > 0:
        return range(int(columns))
    names = list(columns) if isinstance(columns, Iterable) and not isinstance(columns, str | Set) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise UsageError(
            f"columns={columns!r} is neither a number of columns nor a list of their names.", advice="Write columns=13."
        )
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"Two columns are called {twice!r}.", advice="Give every column a name of its own.")
    return names


__all__ = ["vertical"]
