"""Clients that see only a few of the classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from umbel.errors import UsageError
from umbel.partition.allocation import Counts, apportion, deal
from umbel.partition.arguments import Clients, client_names, generator, listed, whole
from umbel.partition.labels import Labels, encode
from umbel.partition.partition import Partition, from_owners


def shards(labels: ArrayLike, *, clients: Clients, per_client: int = 2, seed: int = 0) -> Partition:
    """Sort by class, cut into equal shards, deal ``per_client`` of them to each client.

    A client sees about ``per_client`` classes: a shard that lies on a border has samples of two or more.

    Args:
        labels: the samples' classes, n of them: integers, bools or text.
        clients: how many clients, or their names.
        per_client: shards of each client, >= 1.
        seed: any integer >= 0.

    Raises:
        UsageError: more shards than samples, bad labels.

    Source: McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data,
        AISTATS 2017, section 3. https://arxiv.org/abs/1602.05629
    Differs: when n does not divide, the first shards are one sample larger, and no sample is left out;
        inside a class samples are in random order.
    """
    found, names = encode(labels), client_names(clients)
    whole(per_client, "per_client", least=1)
    total = len(names) * per_client
    if total > len(found):
        raise UsageError(
            f"{len(names)} clients x {per_client} shards are {total} shards of {len(found)} samples.",
            advice=f"Ask for at most {len(found) // per_client} clients, or fewer shards per client.",
        )
    rng = generator(seed, "shards")
    sizes = len(found) // total + (np.arange(total) < len(found) % total)
    owners = np.empty(len(found), np.int64)
    owners[found.shuffled(rng)] = np.repeat(rng.permutation(total) // per_client, sizes)
    return from_owners(owners, names)


def pathological(labels: ArrayLike, *, clients: Clients, classes: int = 2, seed: int = 0) -> Partition:
    """Each client sees exactly ``classes`` classes.

    Every class is held by about as many clients as any other (fewer where it has too few samples), at
    random; a class's samples are split evenly among its holders. All samples are used.

    Args:
        labels: the samples' classes, n of them: integers, bools or text.
        clients: how many clients, or their names.
        classes: classes of each client, 1 to K.
        seed: any integer >= 0.

    Raises:
        UsageError: more classes asked for than there are, too few clients to hold every class, too few
            samples to give each client its classes.

    Source: Li et al., Federated Learning on Non-IID Data Silos, ICDE 2022, section 4.1.
        https://arxiv.org/abs/2102.02079
    Differs: classes are drawn so that all have equally many holders within one, instead of one fixed and
        the others at random, which leaves some classes with no holder and their samples unused.
    """
    found, names = encode(labels), client_names(clients)
    whole(classes, "classes", least=1)
    _require_classes(found, len(names), classes)
    rng = generator(seed, "pathological")
    holds = _draw_classes(_holders(found.counts, len(names), classes, rng), len(names), classes, rng)
    return deal(found, apportion(holds, found.counts, rng), names, rng)


def _holders(counts: Counts, clients: int, classes: int, rng: np.random.Generator) -> Counts:
    """How many clients hold each class: as even as the classes' sizes allow, clients * classes in all."""
    most = np.minimum(counts, clients)
    level = 0
    while np.minimum(most, level + 1).sum() <= clients * classes and level < clients:
        level += 1
    holders = np.minimum(most, level)
    more = rng.permutation(np.flatnonzero(most > holders))[: clients * classes - int(holders.sum())]
    holders[more] += 1
    return holders


def _draw_classes(holders: Counts, clients: int, classes: int, rng: np.random.Generator) -> Counts:
    """Which clients hold which class, a 0/1 table [classes, clients] with these row sums.

    Clients choose one after the other, weighted by how many holders a class still lacks; a class that
    lacks as many as there are clients left must be chosen. So no choice can lead to a dead end.
    """
    table = np.zeros((holders.size, clients), np.int64)
    lacking = holders.copy()
    for left, client in zip(range(clients, 0, -1), rng.permutation(clients), strict=True):
        # The smallest of exponential / weight are a weighted sample without replacement
        # (Efraimidis and Spirakis, Weighted Random Sampling with a Reservoir, IPL 2006).
        turn = np.full(holders.size, np.inf)
        np.divide(rng.standard_exponential(holders.size), lacking, out=turn, where=lacking > 0)
        turn[lacking == left] = -1.0
        chosen = np.argsort(turn)[:classes]
        table[chosen, client] = 1
        lacking[chosen] -= 1
    return table


def _require_classes(labels: Labels, clients: int, classes: int) -> None:
    known = len(labels.classes)
    if classes > known:
        raise UsageError(
            f"Each client is to see {classes} classes, but the labels have {known}: {listed(labels.classes)}.",
            advice=f"Ask for at most {known} classes per client.",
        )
    if clients * classes < known:
        raise UsageError(
            f"{clients} clients x {classes} classes cannot hold {known} classes: some samples would be left out.",
            advice=f"Ask for at least {-(-known // classes)} clients, or {-(-known // clients)} classes per client.",
        )
    places = int(np.minimum(labels.counts, clients).sum())
    if places < clients * classes:
        rare = [name for name, count in zip(labels.classes, labels.counts, strict=True) if count < clients]
        raise UsageError(
            f"{clients} clients x {classes} classes take {clients * classes} holders, but the classes have samples "
            f"for {places}: {listed(map(repr, rare))} have fewer samples than there are clients.",
            advice=f"Ask for fewer clients or fewer than {classes} classes per client.",
        )


__all__ = ["pathological", "shards"]
