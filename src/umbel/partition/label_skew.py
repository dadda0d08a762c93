"""Clients that see the classes in different proportions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from umbel.errors import UsageError
from umbel.partition.allocation import (
    Floats,
    apportion,
    client_sizes,
    deal,
    fit,
    proportions,
    raise_minimum,
    require,
)
from umbel.partition.arguments import Clients, client_names, generator, listed
from umbel.partition.labels import Labels, encode
from umbel.partition.partition import Partition

SMALLEST, LARGEST = 1e-300, 1e300  # beyond these log(uniform) / alpha or the gamma draw leaves float64


def dirichlet(
    labels: ArrayLike,
    *,
    clients: Clients,
    alpha: float | ArrayLike,
    balanced: bool = False,
    min_size: int = 1,
    seed: int = 0,
) -> Partition:
    """Label skew: each class is split among the clients in proportions drawn from Dir(alpha).

    For each class k draw p_k ~ Dir(alpha_1, ..., alpha_N) over the N clients; client j gets
    round(p_kj * n_k) of its n_k samples (largest remainder). Small alpha: few clients hold a class;
    large alpha: all clients look alike. The clients' sizes follow from the draws.

    The proportions of a class depend on the seed, the class's name, alpha and the clients alone: the
    train and the test labels of one data set, partitioned with one seed, give each client the same
    classes in the same proportions (up to rounding and the minimum size).

    Args:
        labels: the samples' classes, n of them: integers, bools or text.
        clients: how many clients, or their names.
        alpha: concentration, 1e-300 to 1e300: one number, or one per client.
        balanced: give all clients the same size (within one): what a full client is due goes to the
            others in their proportions.
        min_size: the fewest samples of a client. Clients that drew fewer get samples of the largest
            ones; see ``umbel.partition.allocation.raise_minimum``.
        seed: any integer >= 0.

    Raises:
        UsageError: fewer than clients * min_size samples, alpha out of range, bad labels.

    Cost: O(n + classes * clients), at most ``clients`` passes when balanced.
    Source: Yurochkin et al., Bayesian Nonparametric Federated Learning of Neural Networks, ICML 2019,
        section 4. https://arxiv.org/abs/1905.12022
    Differs: min_size moves as few samples as possible instead of drawing again until it is met;
        balanced fits both margins instead of closing clients above the mean size class by class,
        which depends on the order of the classes.
    """
    found, names = encode(labels), client_names(clients)
    require(len(found), len(names), min_size, what="samples")
    alphas = _alphas(alpha, names, "client")
    logs = _log_gammas(found, np.broadcast_to(alphas, (len(found.classes), len(names))), seed, "dirichlet")
    rng = generator(seed, "dirichlet")
    if balanced:
        counts = fit(logs, found.counts, client_sizes(len(found), names, None, min_size, what="samples"), rng)
    else:
        counts = raise_minimum(apportion(proportions(logs), found.counts, rng), min_size, rng)
    return deal(found, counts, names, rng)


def inner_dirichlet(
    labels: ArrayLike,
    *,
    clients: Clients,
    alpha: float | ArrayLike,
    sizes: ArrayLike | None = None,
    min_size: int = 1,
    seed: int = 0,
) -> Partition:
    """Label skew at given sizes: each client's mix of classes is drawn from Dir(alpha).

    For each client j draw q_j ~ Dir(alpha_1, ..., alpha_K) over the K classes; it gets q_jk of its
    samples from class k as long as there are any. A class asked for more than it has is shared out in
    proportion to what was asked, and the clients ask the other classes for the rest.

    Alpha times the classes' shares, ``alpha=0.3 * counts / counts.sum()``, is the scheme of Hsu et al.;
    real ``sizes`` drawn from a lognormal give the unbalanced one of Acar et al.

    Args:
        labels: the samples' classes, n of them: integers, bools or text.
        clients: how many clients, or their names.
        alpha: concentration, 1e-300 to 1e300: one number, or one per class in the order of the classes.
        sizes: samples per client: integers that sum to n, or real shares; None: all the same.
        min_size: the fewest samples of a client; integer sizes are taken as they are.
        seed: any integer >= 0.

    Raises:
        UsageError: sizes that do not sum to n, too few samples, alpha out of range, bad labels.

    Cost: O(n + classes * clients), at most ``classes`` passes.
    Source: Acar et al., Federated Learning Based on Dynamic Regularization, ICLR 2021, appendix.
        https://arxiv.org/abs/2111.04263
        Hsu et al., Measuring the Effects of Non-Identical Data Distribution for Federated Visual
        Classification, 2019, section 3. https://arxiv.org/abs/1909.06335
    Differs: clients are served together, in rounds, and not sample by sample in random order; their
        mixes are the expected ones up to rounding. A client may get classes that it gave no weight
        when the others are used up, where sampling divides by zero.
    """
    found, names = encode(labels), client_names(clients)
    room = client_sizes(len(found), names, sizes, min_size, what="samples")
    alphas = _alphas(alpha, found.classes, "class")
    logs = _log_gammas(found, np.broadcast_to(alphas[:, None], (alphas.size, len(names))), seed, "inner_dirichlet")
    rng = generator(seed, "inner_dirichlet")
    return deal(found, fit(logs.T, room, found.counts, rng).T, names, rng)


def distribution(
    labels: ArrayLike,
    shares: ArrayLike | Mapping[Any, ArrayLike],
    *,
    clients: Clients | None = None,
    min_size: int = 0,
    seed: int = 0,
) -> Partition:
    """A given table: how much of each class goes to each client.

    Args:
        labels: the samples' classes, n of them: integers, bools or text.
        shares: shape [classes, clients], the classes in their order, or a mapping of class to row. Real
            numbers >= 0 are shares of a class, scaled to its size; integers are counts, and each
            row must sum to its class's.
        clients: the clients' names, or their number; as many as columns.
        min_size: the fewest samples of a client; above 0 the table is changed as little as possible.
        seed: any integer >= 0; it decides which samples of a class a client gets.

    Raises:
        UsageError: the table does not fit the classes or the clients, names the class.
    """
    found = encode(labels)
    table = _table(shares, found)
    names = client_names(table.shape[1] if clients is None else clients)
    if len(names) != table.shape[1]:
        raise UsageError(
            f"The table has {table.shape[1]} columns for {len(names)} clients.", advice="Give one column per client."
        )
    require(len(found), len(names), min_size, what="samples")
    rng = generator(seed, "distribution")
    counts = apportion(table, found.counts, rng) if table.dtype.kind == "f" else table.astype(np.int64)
    return deal(found, raise_minimum(counts, min_size, rng), names, rng)


def _log_gammas(labels: Labels, alphas: Floats, seed: int, scheme: str) -> Floats:
    """Logarithms of Gamma(alpha) draws, [classes, clients]; a class draws from a stream of its own.

    Gamma(a) has the law of Gamma(a + 1) * U**(1 / a), so its logarithm exists where the draw itself
    would be 0 (from a = 0.001 on it often is), and proportions never are 0 / 0.
    Source: Marsaglia and Tsang, A Simple Method for Generating Gamma Variables, TOMS 2000, section 6.
    """
    logs = np.empty(alphas.shape)
    for name, alpha, row in zip(labels.classes, alphas, logs, strict=True):
        rng = generator(seed, scheme, "class", name)
        draw = np.maximum(rng.standard_gamma(alpha + 1), np.finfo(np.float64).tiny)
        row[:] = np.log(draw) - rng.standard_exponential(alpha.shape) / alpha
    return logs


def _alphas(alpha: float | ArrayLike, names: tuple[str, ...], of: str) -> Floats:
    """One concentration per client, or per class."""
    given = np.asarray(alpha)
    if given.dtype.kind not in "iuf" or given.shape not in {(), (len(names),)}:
        raise UsageError(
            f"alpha is {given.dtype} of shape {given.shape} for {len(names)} of them, one per {of}.",
            advice=f"Give one number, or one number per {of}.",
        )
    values = np.broadcast_to(given.astype(np.float64), (len(names),))
    wrong = ~((values >= SMALLEST) & (values <= LARGEST))
    if wrong.any():
        at = int(np.argmax(wrong))
        where = f" for {of} {names[at]!r}" if given.shape else ""
        raise UsageError(
            f"alpha is {values[at]:g}{where}.", advice=f"Give a number from {SMALLEST:g} to {LARGEST:g}; 0.1 is skewed."
        )
    return values


def _table(shares: ArrayLike | Mapping[Any, ArrayLike], labels: Labels) -> NDArray[Any]:
    table = np.asarray(_rows(shares, labels) if isinstance(shares, Mapping) else shares)
    if table.dtype.kind not in "iuf" or table.ndim != 2 or table.shape[0] != len(labels.classes) or not table.size:
        raise UsageError(
            f"The table is {table.dtype} of shape {table.shape}, and the labels have {len(labels.classes)} classes: "
            f"{listed(labels.classes)}.",
            advice="Give one row per class and one column per client.",
        )
    sums = table.sum(axis=1, dtype=np.longdouble)
    if table.dtype.kind == "f":
        fine, rule = np.isfinite(table).all(axis=1) & (sums > 0), "finite shares, not all 0"
    else:
        fine, rule = sums == labels.counts, "counts that sum to the class's size"
    wrong = ~fine | (table < 0).any(axis=1)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise UsageError(
            f"The row of class {labels.classes[at]!r} sums to {sums[at]:g} and goes from {table[at].min()} to "
            f"{table[at].max()}; the class has {labels.counts[at]} samples.",
            advice=f"Give {rule}, 0 or more each.",
        )
    return table.astype(np.float64) if table.dtype.kind == "f" else table


def _rows(shares: Mapping[Any, ArrayLike], labels: Labels) -> list[ArrayLike]:
    rows = {str(encode([name]).classes[0]): row for name, row in shares.items()}
    missing, unknown = set(labels.classes) - set(rows), set(rows) - set(labels.classes)
    if missing or unknown:
        wrong = [f"no row for class {listed(sorted(missing))}"] if missing else []
        wrong += [f"a row for {listed(sorted(unknown))}, of which there are no samples"] if unknown else []
        raise UsageError(f"The table has {' and '.join(wrong)}.", advice="Give one row per class of the labels.")
    return [rows[name] for name in labels.classes]


__all__ = ["dirichlet", "distribution", "inner_dirichlet"]
