"""What holds for every partition of every scheme: cover, disjoint, minimum size, order, determinism."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from umbel import partition
from umbel.errors import UsageError
from umbel.partition.allocation import apportion, fit, raise_minimum

Scheme = Callable[..., partition.Partition]


def many(clients: int | list[str]) -> int:
    return clients if isinstance(clients, int) else len(clients)


# Each takes labels, clients=, seed= (and min_size= where it is a promise) and uses every sample.
WITH_MINIMUM: dict[str, Scheme] = {
    "iid": partition.iid,
    "linear": partition.linear,
    "square": partition.square,
    "exponential": partition.exponential,
    "dirichlet": lambda labels, **more: partition.dirichlet(labels, alpha=0.2, **more),
    "dirichlet, balanced": lambda labels, **more: partition.dirichlet(labels, alpha=0.2, balanced=True, **more),
    "dirichlet, own alphas": lambda labels, clients, **more: partition.dirichlet(
        labels, clients=clients, alpha=np.geomspace(0.01, 100, many(clients)), **more
    ),
    "inner_dirichlet": lambda labels, **more: partition.inner_dirichlet(labels, alpha=0.2, **more),
    "inner_dirichlet, own sizes": lambda labels, clients, **more: partition.inner_dirichlet(
        labels, clients=clients, alpha=0.2, sizes=np.geomspace(1, 50, many(clients)), **more
    ),
    "sizes": lambda labels, clients, **more: partition.sizes(
        labels, np.geomspace(1e-300, 1e300, many(clients)), clients=clients, **more
    ),
    "distribution": lambda labels, clients, **more: partition.distribution(
        labels, np.add.outer(np.arange(len(set(labels))), np.arange(many(clients))) % 3 + 1e-9, clients=clients, **more
    ),
}
SCHEMES: dict[str, Scheme] = WITH_MINIMUM | {
    "shards": lambda labels, **more: partition.shards(labels, per_client=1, **more),
    "pathological": lambda labels, **more: partition.pathological(labels, classes=1, **more),
}

every_scheme = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES.keys())
per_scheme = settings(max_examples=settings().max_examples // 4)  # there are many schemes
seeds = st.integers(0, 2**70)
alphas = st.floats(-300, 300).map(lambda power: 10.0**power)


@st.composite
def tasks(draw: st.DrawFn, *, least: int = 1) -> tuple[list[int], int]:
    """Labels and a number of clients that all schemes can serve, ``least`` samples each."""
    counts = draw(st.lists(st.integers(8, 40), min_size=1, max_size=5))
    labels = draw(st.permutations([label for label, count in enumerate(counts) for _ in range(count)]))
    return labels, draw(st.integers(len(counts), 8).filter(lambda clients: clients * least <= len(labels)))


@every_scheme
@per_scheme
@given(tasks(), seeds)
def test_every_sample_belongs_to_one_client(scheme: Scheme, task: tuple[list[int], int], seed: int) -> None:
    labels, clients = task
    parts = scheme(labels, clients=clients, seed=seed)
    assert len(parts) == clients
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    assert parts.sizes.tolist() == [len(part) for part in parts]
    for part in parts:
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()
        assert not part.flags.writeable


@every_scheme
@per_scheme
@given(tasks(), seeds, st.randoms(use_true_random=False))
def test_class_counts_do_not_depend_on_the_order_of_samples(
    scheme: Scheme, task: tuple[list[int], int], seed: int, random: Any
) -> None:
    labels, clients = task
    other = random.sample(labels, len(labels))
    before = partition.class_counts(scheme(labels, clients=clients, seed=seed), labels)
    after = partition.class_counts(scheme(other, clients=clients, seed=seed), other)
    np.testing.assert_array_equal(before, after)


@every_scheme
@per_scheme
@given(tasks(), seeds)
def test_same_arguments_same_partition(scheme: Scheme, task: tuple[list[int], int], seed: int) -> None:
    labels, clients = task
    first = scheme(labels, clients=clients, seed=seed)
    assert first == scheme(np.array(labels, np.uint8), clients=clients, seed=seed)
    assert hash(first) == hash(pickle.loads(pickle.dumps(first)))  # noqa: S301 - our own bytes


@every_scheme
@per_scheme
@given(tasks(), st.lists(st.text(min_size=1), min_size=8, max_size=8, unique=True))
def test_names_are_only_names(scheme: Scheme, task: tuple[list[int], int], names: list[str]) -> None:
    labels, clients = task
    named = scheme(labels, clients=names[:clients])
    assert named.names == tuple(names[:clients])
    for name, part in zip(named.names, scheme(labels, clients=clients), strict=True):
        np.testing.assert_array_equal(named[name], part)


@pytest.mark.parametrize("scheme", WITH_MINIMUM.values(), ids=WITH_MINIMUM.keys())
@per_scheme
@given(st.data())
def test_minimum_size(scheme: Scheme, data: st.DataObject) -> None:
    least = data.draw(st.integers(0, 12))
    labels, clients = data.draw(tasks(least=least))
    parts = scheme(labels, clients=clients, seed=3, min_size=least)
    assert parts.sizes.min() >= least
    assert parts.samples == len(labels)


@pytest.mark.parametrize("scheme", WITH_MINIMUM.values(), ids=WITH_MINIMUM.keys())
@per_scheme
@given(tasks(), st.integers(1, 100))
def test_a_minimum_that_cannot_be_had_is_refused(scheme: Scheme, task: tuple[list[int], int], more: int) -> None:
    labels, clients = task
    least = len(labels) // clients + more
    with pytest.raises(UsageError, match=f"cannot give {clients} clients at least {least} each") as caught:
        scheme(labels, clients=clients, seed=3, min_size=least)
    assert caught.value.advice


@given(tasks(), alphas, seeds, st.booleans(), st.booleans())
def test_any_alpha(task: tuple[list[int], int], alpha: float, seed: int, inner: bool, balanced: bool) -> None:
    labels, clients = task
    with np.errstate(all="raise"):
        if inner:
            parts = partition.inner_dirichlet(labels, clients=clients, alpha=alpha, seed=seed)
        else:
            parts = partition.dirichlet(labels, clients=clients, alpha=alpha, balanced=balanced, seed=seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    if inner or balanced:
        assert np.ptp(parts.sizes) <= 1


@given(tasks(), st.lists(alphas, min_size=8, max_size=8), st.booleans())
def test_alphas_of_all_magnitudes_at_once(task: tuple[list[int], int], many: list[float], balanced: bool) -> None:
    labels, clients = task
    parts = partition.dirichlet(labels, clients=clients, alpha=many[:clients], balanced=balanced)
    assert parts.samples == len(labels)
    inner = partition.inner_dirichlet(labels, clients=clients, alpha=many[: len(set(labels))])
    assert inner.samples == len(labels)


@given(st.integers(1, 60), st.integers(1, 90))
def test_tiny_data_sets(n: int, clients: int) -> None:
    """Fewer samples than classes or clients: served with empty clients, or refused; never anything else."""
    labels = np.arange(n) % 7
    for scheme in WITH_MINIMUM.values():
        assert scheme(labels, clients=clients, seed=1, min_size=0).samples == n
    for scheme in SCHEMES.values():
        try:
            assert scheme(labels, clients=clients, seed=1).samples == n
        except UsageError as error:
            assert error.advice


@given(tasks(), alphas, seeds, st.integers(2, 30))
def test_train_and_test_labels_are_split_alike(
    task: tuple[list[int], int], alpha: float, seed: int, times: int
) -> None:
    """A class's proportions depend on its name and the seed: not on its size, nor on the other classes."""
    small, clients = task
    large = np.repeat([label for label in small if label != 0] or small, times)

    def shares(labels: Any) -> dict[str, np.ndarray[Any, Any]]:
        parts = partition.dirichlet(labels, clients=clients, alpha=alpha, seed=seed, min_size=0)
        counts = partition.class_counts(parts, labels)
        return dict(zip(map(str, np.unique(labels)), (counts / counts.sum(axis=0)).T, strict=True))

    before = shares(small)
    for label, after in shares(large).items():
        rounding = 1 / small.count(int(label)) + 1 / (times * small.count(int(label)))
        np.testing.assert_allclose(before[label], after, rtol=0, atol=rounding)


@given(tasks(), st.integers(1, 5), seeds)
def test_pathological_gives_exactly_so_many_classes(task: tuple[list[int], int], classes: int, seed: int) -> None:
    labels, clients = task
    assume(classes <= len(set(labels)))
    parts = partition.pathological(labels, clients=clients, classes=classes, seed=seed)
    holds = partition.class_counts(parts, labels) > 0
    assert (holds.sum(axis=1) == classes).all()
    assert np.ptp(holds.sum(axis=0)) <= 1  # each class has 8 samples, enough for 8 clients
    assert parts.samples == len(labels)


@given(st.lists(st.integers(1, 5), min_size=2, max_size=7), st.integers(1, 12), st.integers(1, 7))
def test_pathological_with_rare_classes(counts: list[int], clients: int, classes: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    possible = classes <= len(counts) <= clients * classes <= sum(min(count, clients) for count in counts)
    if possible:
        parts = partition.pathological(labels, clients=clients, classes=classes)
        assert ((partition.class_counts(parts, labels) > 0).sum(axis=1) == classes).all()
        assert parts.samples == len(labels)
    else:
        with pytest.raises(UsageError) as caught:
            partition.pathological(labels, clients=clients, classes=classes)
        assert caught.value.advice


@given(tasks(), st.integers(1, 3))
def test_shards_are_runs_of_the_sorted_labels(task: tuple[list[int], int], per_client: int) -> None:
    labels, clients = task
    assume(clients * per_client <= len(labels))
    parts = partition.shards(labels, clients=clients, per_client=per_client, seed=5)
    assert np.ptp(parts.sizes) <= per_client
    # k runs of the sorted labels, cut out of a list with c classes, touch at most k + c - 1 classes in all.
    per_shard = -(-len(labels) // (clients * per_client))
    most = per_client * (2 + per_shard // min(Counter(labels).values()))
    assert ((partition.class_counts(parts, labels) > 0).sum(axis=1) <= most).all()


@given(
    hnp.arrays(np.float64, st.integers(1, 60), elements=st.floats(allow_nan=False, width=64)),
    st.integers(1, 9),
    st.floats(0, 1),
    st.randoms(use_true_random=False),
)
def test_continuous(values: np.ndarray[Any, np.dtype[np.float64]], clients: int, strict: float, random: Any) -> None:
    assume(clients <= len(values))
    parts = partition.continuous(values, clients=clients, strictness=strict, seed=4)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(values)))
    assert np.ptp(parts.sizes) <= 1
    other = np.array(random.sample(values.tolist(), len(values)))
    moved = partition.continuous(other, clients=clients, strictness=strict, seed=4)
    for before, after in zip(parts, moved, strict=True):
        assert sorted(values[before]) == sorted(other[after])
    pure = partition.continuous(values, clients=clients, seed=4)
    for low, high in pairwise(pure):
        assert values[low].max() <= values[high].min()


@given(st.lists(st.text(max_size=3), min_size=1, max_size=40), st.integers(1, 8), st.sampled_from(["ids", "samples"]))
def test_no_id_is_split(ids: list[str], clients: int, balance: Any) -> None:
    assume(clients <= len(set(ids)))
    assume("" not in ids)  # a client's name is not empty
    alone = partition.natural(ids)
    assert set(alone.names) == set(ids)
    for name, part in zip(alone.names, alone, strict=True):
        assert [ids[at] for at in part] == [name] * ids.count(name)
    parts = partition.natural_groups(ids, clients=clients, balance=balance)
    groups = [{ids[at] for at in part} for part in parts]
    assert sum(map(len, groups)) == len(set(ids)) == len(set().union(*groups))
    assert parts.samples == len(ids)
    if balance == "ids":
        assert max(map(len, groups)) - min(map(len, groups)) <= 1
    else:  # the last id went to the client with the fewest samples
        assert parts.sizes.max() - parts.sizes.min() <= max(Counter(ids).values())


@given(st.integers(1, 30), st.integers(1, 6), st.sets(st.integers(0, 29), max_size=4), st.booleans(), seeds)
def test_vertical(columns: int, clients: int, shared: set[int], shuffle: bool, seed: int) -> None:
    shared = {at for at in shared if at < columns}
    assume(shared or columns >= clients)
    parts = partition.vertical(columns, clients=clients, shared=sorted(shared), shuffle=shuffle, seed=seed)
    own = [set(part.tolist()) - shared for part in parts]
    assert all(shared <= set(part.tolist()) for part in parts)
    assert sum(map(len, own)) == len(set().union(*own)) == columns - len(shared)
    assert max(map(len, own)) - min(map(len, own)) <= 1
    assert parts.samples == columns


weights = hnp.arrays(np.float64, (3, 6), elements=st.floats(0, 1e308)).filter(
    lambda table: (table.max(axis=1) > 0).all()
)
small = hnp.arrays(np.int64, (4, 6), elements=st.integers(0, 9))


@given(weights, st.lists(st.integers(0, 10**9), min_size=3, max_size=3))
def test_apportion_keeps_the_quota(table: np.ndarray[Any, Any], totals: list[int]) -> None:
    counts = apportion(table, np.array(totals), np.random.default_rng(1))
    assert counts.sum(axis=1).tolist() == totals
    for row, total, got in zip(table, totals, counts, strict=True):
        exact = [Fraction(cell) for cell in row]
        quotas = [cell * total / sum(exact) for cell in exact]
        assert all(abs(count - quota) < 1 + 1e-6 for count, quota in zip(got.tolist(), quotas, strict=True))
        assert (got[row == 0] == 0).all()


@given(small, st.integers(0, 20))
def test_apportion_of_integers_never_takes_more_than_there_is(table: np.ndarray[Any, Any], total: int) -> None:
    table = table + (table.sum(axis=1, keepdims=True) == 0)
    totals = np.minimum(total, table.sum(axis=1))
    counts = apportion(table, totals, np.random.default_rng(1))
    assert (counts.sum(axis=1) == totals).all()
    assert ((counts >= 0) & (counts <= table)).all()


@given(small, st.integers(0, 8))
def test_raise_minimum_moves_as_few_samples_as_possible(table: np.ndarray[Any, Any], minimum: int) -> None:
    assume(table.sum() >= 6 * minimum)
    after = raise_minimum(table, minimum, np.random.default_rng(1))
    assert (after >= 0).all()
    assert (after.sum(axis=1) == table.sum(axis=1)).all()
    sizes, sizes_after = table.sum(axis=0), after.sum(axis=0)
    assert (sizes_after[sizes < minimum] == minimum).all()
    assert (sizes_after[sizes >= minimum] >= minimum).all()
    assert np.abs(after - table).sum() == 2 * np.maximum(minimum - sizes, 0).sum()
    if (cut := sizes_after < sizes).any():  # nobody who gave is left smaller than someone who did not, but for one
        assert sizes_after.max() <= sizes_after[cut].min() + 1


@given(hnp.arrays(np.float64, (4, 6), elements=st.floats(-1e302, 1e302)), small, st.integers(0, 2**32))
def test_fit_keeps_both_margins(affinity: np.ndarray[Any, Any], table: np.ndarray[Any, Any], seed: int) -> None:
    fitted = fit(affinity, table.sum(axis=1), table.sum(axis=0), np.random.default_rng(seed))
    assert (fitted >= 0).all()
    assert (fitted.sum(axis=1) == table.sum(axis=1)).all()
    assert (fitted.sum(axis=0) == table.sum(axis=0)).all()


@given(st.lists(st.lists(st.integers(0, 30), max_size=5), max_size=6))
def test_a_partition_is_disjoint_or_refused(indexes: list[list[int]]) -> None:
    if Counter(at for part in indexes for at in part).total() == len({at for part in indexes for at in part}):
        parts = partition.Partition(indexes)
        assert [part.tolist() for part in parts] == [sorted(part) for part in indexes]
        assert parts == partition.Partition(reversed(indexes), [str(i) for i in reversed(range(len(parts)))])[::-1]
        assert parts.samples == sum(map(len, indexes))
    else:
        with pytest.raises(UsageError):
            partition.Partition(indexes)


@given(tasks(), seeds)
def test_divergences_are_bounded_and_zero_for_one_client(task: tuple[list[int], int], seed: int) -> None:
    labels, clients = task
    parts = partition.dirichlet(labels, clients=clients, alpha=0.1, seed=seed)
    movers, shannon = partition.earth_movers(parts, labels), partition.jensen_shannon(parts, labels)
    assert ((movers.clients >= 0) & (movers.clients <= 2)).all()
    assert ((shannon.clients >= 0) & (shannon.clients <= 1)).all()
    alone = partition.iid(labels, clients=1)
    assert partition.earth_movers(alone, labels).mean == partition.jensen_shannon(alone, labels).mean == 0
