"""Clients that see different ranges of a continuous quantity."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from umbel.errors import UsageError
from umbel.partition.allocation import client_sizes
from umbel.partition.arguments import Clients, client_names, generator, is_real
from umbel.partition.labels import vector
from umbel.partition.partition import Indexes, Partition, from_owners


def continuous(
    values: ArrayLike,
    *,
    clients: Clients,
    strictness: float = 1.0,
    sizes: ArrayLike | None = None,
    min_size: int = 1,
    seed: int = 0,
) -> Partition:
    """Quantile bins of a quantity, one per client, kept to a given degree.

    Samples are ranked by value and cut into one bin per client, the lowest values first. A random
    share of 1 - strictness of all samples then changes places among themselves. So 1 gives pure
    bins, 0 random clients, and 0.8 leaves 80 % of a client's samples in its bin (and the others that
    fall there by chance). Sizes are the same for every strictness.

    Only the order of the values matters: a logarithm, another unit or an outlier changes nothing.

    Args:
        values: a quantity of each sample, n of them: numbers or dates, not missing.
        clients: how many clients, or their names.
        strictness: 0 to 1.
        sizes: samples per client: integers that sum to n, or real shares; None: all the same.
        min_size: the fewest samples of a client; integer sizes are taken as they are.
        seed: any integer >= 0; it also decides between samples of equal value.

    Raises:
        UsageError: a missing value, by its index; strictness out of range; too few samples.
    """
    if not is_real(strictness) or not 0 <= strictness <= 1:
        raise UsageError(f"strictness is {strictness!r}.", advice="Give a number from 0 (random) to 1 (pure bins).")
    rng = generator(seed, "continuous")
    ranked, names = _ranked(values, rng), client_names(clients)
    each = client_sizes(ranked.size, names, sizes, min_size, what="samples")
    bins = np.repeat(np.arange(len(names)), each)
    moved = rng.permutation(ranked.size)[: round((1 - strictness) * ranked.size)]
    bins[moved] = bins[rng.permutation(moved)]
    owners = np.empty(ranked.size, np.int64)
    owners[ranked] = bins
    return from_owners(owners, names)


def _ranked(values: ArrayLike, rng: np.random.Generator) -> Indexes:
    """Sample indexes by rising value, equal values in random order."""
    array = vector(values, what="values")
    if array.dtype.kind not in "biufmM":
        bad = next((at for at, value in enumerate(array.tolist()) if not is_real(value)), None)
        if bad is None:
            return _ranked(array.astype(np.float64), rng)
        raise UsageError(
            f"values[{bad}] is {array[bad]!r}, which is no number.",
            advice="Drop missing values; for classes use umbel.partition.dirichlet.",
        )
    missing = np.isnat(array) if array.dtype.kind in "mM" else np.isnan(array)
    if missing.any():
        raise UsageError(
            f"values[{int(np.argmax(missing))}] is missing, as {int(missing.sum())} of {array.size} are.",
            advice="Drop samples without a value, or fill it in.",
        )
    drawn = rng.permutation(array.size)
    return drawn[np.argsort(array[drawn], kind="stable")]


__all__ = ["continuous"]
