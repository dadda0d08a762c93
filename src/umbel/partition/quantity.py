"""Clients that differ in how many samples they have, not in which."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from umbel.errors import UsageError
from umbel.partition.allocation import Counts, Floats, client_sizes
from umbel.partition.arguments import Clients, client_names, generator, is_real
from umbel.partition.labels import Labels, Samples, samples
from umbel.partition.partition import Partition, from_owners


def iid(data: Samples, *, clients: Clients, min_size: int = 1, seed: int = 0) -> Partition:
    """Equal sizes, random samples: the first n mod clients have one sample more.

    Args:
        data: how many samples there are, or their labels. With labels, how many of each class a client
            gets does not depend on the order of the samples.
        clients: how many clients, or their names.
        min_size: the fewest samples of a client; 0 allows more clients than samples.
        seed: any integer >= 0.

    Raises:
        UsageError: fewer than clients * min_size samples.
    """
    found, names = samples(data), client_names(clients)
    return _split(found, client_sizes(len(found), names, None, min_size, what="samples"), names, seed)


def sizes(
    data: Samples,
    sizes: ArrayLike,
    *,
    clients: Clients | None = None,
    min_size: int = 1,
    seed: int = 0,
) -> Partition:
    """Given sizes, random samples.

    Args:
        data: how many samples there are, or their labels, as for ``iid``.
        sizes: samples per client: integers that sum to n, or real shares that are scaled to it.
        clients: the clients' names, or their number; as many as sizes.
        min_size: the fewest samples of a client when shares are given; integers are taken as they are.
        seed: any integer >= 0.

    Raises:
        UsageError: sizes that do not sum to n, negative ones, fewer than clients * min_size samples.
    """
    found = samples(data)
    names = client_names(np.size(sizes) if clients is None else clients)
    return _split(found, client_sizes(len(found), names, sizes, min_size, what="samples"), names, seed)


def linear(data: Samples, *, clients: Clients, min_size: int = 1, seed: int = 0) -> Partition:
    """Sizes proportional to 1, 2, 3, ...; random samples.

    Args:
        data: how many samples there are, or their labels, as for ``iid``.
        clients: how many clients, or their names.
        min_size: the fewest samples of a client; the largest clients give what the smallest lack.
        seed: any integer >= 0.

    Raises:
        UsageError: fewer than clients * min_size samples.
    """
    return _weighted(data, clients, min_size, seed, power=1)


def square(data: Samples, *, clients: Clients, min_size: int = 1, seed: int = 0) -> Partition:
    """Sizes proportional to 1, 4, 9, ...; random samples.

    Args:
        data: how many samples there are, or their labels, as for ``iid``.
        clients: how many clients, or their names.
        min_size: the fewest samples of a client; the largest clients give what the smallest lack.
        seed: any integer >= 0.

    Raises:
        UsageError: fewer than clients * min_size samples.
    """
    return _weighted(data, clients, min_size, seed, power=2)


def exponential(
    data: Samples, *, clients: Clients, growth: float = math.e, min_size: int = 1, seed: int = 0
) -> Partition:
    """Sizes proportional to 1, g, g**2, ...; random samples.

    With the default g = e and many clients nearly all have ``min_size``: the last one holds 63 % of
    the samples, the last five 99 %. A growth near 1 is gentler: 1.05 makes the last of 100 clients
    125 times as large as the first.

    Args:
        data: how many samples there are, or their labels, as for ``iid``.
        clients: how many clients, or their names.
        growth: how many times larger each client is than the one before; > 0.
        min_size: the fewest samples of a client; the largest clients give what the smallest lack.
        seed: any integer >= 0.

    Raises:
        UsageError: fewer than clients * min_size samples, growth out of range.
    """
    if not is_real(growth) or growth <= 0:
        raise UsageError(f"growth is {growth!r}.", advice="Give a finite number above 0, for example 1.1.")
    names = client_names(clients)
    logs = np.arange(len(names)) * math.log(growth)
    with np.errstate(under="ignore"):
        shares = np.exp(logs - logs.max())  # the largest is 1: nothing overflows, however many clients
    return _shared_out(samples(data), names, shares, min_size, seed)


def _weighted(data: Samples, clients: Clients, min_size: int, seed: int, *, power: int) -> Partition:
    names = client_names(clients)
    return _shared_out(samples(data), names, np.arange(1.0, len(names) + 1) ** power, min_size, seed)


def _shared_out(labels: Labels, names: tuple[str, ...], shares: Floats, min_size: int, seed: int) -> Partition:
    return _split(labels, client_sizes(len(labels), names, shares, min_size, what="samples"), names, seed)


def _split(labels: Labels, each: Counts, names: tuple[str, ...], seed: int) -> Partition:
    rng = generator(seed, "quantity")
    owners = np.empty(len(labels), np.int64)
    owners[labels.shuffled(rng)] = rng.permutation(np.repeat(np.arange(len(names)), each))
    return from_owners(owners, names)


__all__ = ["exponential", "iid", "linear", "sizes", "square"]
