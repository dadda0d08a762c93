"""How far clients' mixes of classes are from the mix of all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from umbel.errors import UsageError
from umbel.partition.allocation import Counts, Floats
from umbel.partition.labels import Labels, encode
from umbel.partition.partition import Partition


@final
@dataclass(frozen=True, slots=True, eq=False)
class Divergence:
    """A distance of each client from the population.

    Attributes:
        clients: one number per client, shape [clients], in the order of the partition's names; NaN for a
            client without samples, which has no distribution.
        mean: their mean, weighted by the clients' samples.
    """

    clients: NDArray[np.float64]
    mean: float


def class_counts(parts: Partition, labels: ArrayLike) -> Counts:
    """How many samples of each class each client has; shape [clients, classes].

    Args:
        parts: a partition of n samples or fewer.
        labels: the labels of all n samples. Classes are in their order: numbers by value, text by code point.

    Raises:
        UsageError: a client has an index beyond the labels.
    """
    return tally(parts, encode(labels))


def tally(parts: Partition, labels: Labels) -> Counts:
    """``class_counts`` of encoded labels."""
    flat = np.concatenate([np.empty(0, np.int64), *parts])
    owners = np.repeat(np.arange(len(parts)), parts.sizes)
    if flat.size and flat.max() >= len(labels):
        at = int(np.argmax(flat))
        raise UsageError(
            f"Client {parts.names[owners[at]]!r} has index {flat[at]}, but there are {len(labels)} labels.",
            advice="Give the labels of the samples that were partitioned.",
        )
    known = len(labels.classes)
    counts = np.bincount(owners * known + labels.codes[flat], minlength=len(parts) * known)
    return counts.reshape(len(parts), known).astype(np.int64, copy=False)


def earth_movers(parts: Partition, labels: ArrayLike) -> Divergence:
    """Earth mover's distance between each client's classes and the population's: 0 to 2.

    For client j sum_k |q_jk - p_k|, q_j its distribution over the classes, p that of all samples that
    the clients hold. 0: the same mix; near 2: classes that hardly anyone else has. (All classes
    are equally far from each other, so this is twice the share of samples that would have to move.)

    Args:
        parts: the partition.
        labels: the labels of all samples.

    Raises:
        UsageError: a client has an index beyond the labels.

    Source: Zhao et al., Federated Learning with Non-IID Data, 2018, section 3.2, equation 4.
        https://arxiv.org/abs/1806.00582
    """
    counts = class_counts(parts, labels)
    mixes, population = _distributions(counts)
    return _divergence(np.abs(mixes - population).sum(axis=1), counts)


def jensen_shannon(parts: Partition, labels: ArrayLike) -> Divergence:
    """Jensen-Shannon divergence between each client's classes and the population's, in bits: 0 to 1.

    For client j (KL(q_j || m) + KL(p || m)) / 2 with m = (q_j + p) / 2 and logarithms to base 2; q_j its
    distribution over the classes, p that of all samples that the clients hold. The square root is
    a metric (``scipy.spatial.distance.jensenshannon``); this is the divergence itself.

    Args:
        parts: the partition.
        labels: the labels of all samples.

    Raises:
        UsageError: a client has an index beyond the labels.

    Source: Lin, Divergence Measures Based on the Shannon Entropy, IEEE Trans. Inf. Theory 1991.
    """
    counts = class_counts(parts, labels)
    mixes, population = _distributions(counts)
    middle = (mixes + population) / 2
    bits = (_information(mixes, middle) + _information(np.broadcast_to(population, mixes.shape), middle)) / 2
    return _divergence(np.maximum(bits, 0.0), counts)  # rounding may leave -1e-17


def _distributions(counts: Counts) -> tuple[Floats, Floats]:
    with np.errstate(invalid="ignore"):
        mixes = counts / counts.sum(axis=1, keepdims=True)
        return mixes, counts.sum(axis=0) / counts.sum()


def _information(p: Floats, q: Floats) -> Floats:
    """KL(p || q) by rows in bits, where 0 log 0 = 0; NaN stays."""
    ratio = np.divide(p, q, out=np.ones_like(p), where=p != 0)
    bits: Floats = (p * np.log2(ratio)).sum(axis=1)
    return bits


def _divergence(clients: Floats, counts: Counts) -> Divergence:
    sizes = counts.sum(axis=1)
    clients.flags.writeable = False
    held = sizes > 0
    mean = float(np.average(clients[held], weights=sizes[held])) if held.any() else float("nan")
    return Divergence(clients, mean)


__all__ = ["Divergence", "class_counts", "earth_movers", "jensen_shannon", "tally"]
