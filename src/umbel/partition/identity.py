"""Clients that the data itself names: its writers, devices, hospitals."""

from __future__ import annotations

import heapq
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from umbel.errors import UsageError
from umbel.partition.allocation import Counts
from umbel.partition.arguments import Clients, client_names, generator
from umbel.partition.labels import encode
from umbel.partition.partition import Partition, from_owners


def natural(ids: ArrayLike) -> Partition:
    """One client per id, named after it.

    Clients are in the order of their ids (numbers by value, other text by code point), whatever the
    order of the samples. ``parts[id]`` finds the same client in a partition of the training and in
    one of the test samples.

    Args:
        ids: whose each sample is, n of them: integers or text.

    Raises:
        UsageError: a missing id, or one that is no integer or text.
    """
    found = encode(ids, what="ids")
    return from_owners(found.codes, client_names(found.classes))


def natural_groups(
    ids: ArrayLike, *, clients: Clients, balance: Literal["ids", "samples"] = "ids", seed: int = 0
) -> Partition:
    """Ids put together at random into a given number of clients; no id is split.

    Args:
        ids: whose each sample is, n of them: integers or text.
        clients: how many clients, or their names.
        balance: "ids": every client has as many ids as any other, within one. "samples": every client
            has about as many samples: ids go, the largest first, to the client with the fewest
            samples so far (at most 4/3 of the best possible maximum).
        seed: any integer >= 0.

    Raises:
        UsageError: more clients than ids, a missing id.

    Source: for balance="samples", Graham, Bounds on Multiprocessing Timing Anomalies, SIAM J. Appl. Math. 1969.
    """
    found, names = encode(ids, what="ids"), client_names(clients)
    if len(names) > len(found.classes):
        raise UsageError(
            f"{len(found.classes)} different ids cannot make {len(names)} clients without splitting one.",
            advice=f"Ask for at most {len(found.classes)} clients.",
        )
    if balance not in {"ids", "samples"}:
        raise UsageError(f"balance={balance!r} is unknown.", advice='Choose "ids" or "samples".')
    order = generator(seed, "natural_groups").permutation(len(found.classes))
    owners = np.empty(len(order), np.int64)
    owners[order] = np.arange(len(order)) % len(names)
    if balance == "samples":
        owners[order] = _evenly(found.counts[order], len(names))
    return from_owners(owners[found.codes], names)


def _evenly(counts: Counts, clients: int) -> Counts:
    """Largest first to whoever has the least; equal counts in the order given."""
    owners = np.empty(counts.size, np.int64)
    loads = [(0, client) for client in range(clients)]
    for at in np.argsort(-counts, kind="stable").tolist():
        load, client = loads[0]
        owners[at] = client
        heapq.heapreplace(loads, (load + int(counts[at]), client))
    return owners


__all__ = ["natural", "natural_groups"]
