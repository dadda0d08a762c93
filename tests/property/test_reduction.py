"""The defined reduction: fold and merge laws, and a sum that is a function of the cohort alone."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel import Arrays, Update, aggregate
from umbel.aggregate import Aggregator
from umbel.engine.question import Question
from umbel.engine.reduction import SHARD, Reduction
from umbel.rows import Rows

SENT = Arrays(
    {"w": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3), "s": np.ones(2, np.float32), "n": 5},
    roles={"s": "buffer"},
)


def question(aggregator: Aggregator, sent: Arrays | None = SENT) -> Question:
    kind = "train" if sent is not None else "query"
    return Question(kind=kind, name="q", seed=0, round=1, call=1, model=sent, aggregator=aggregator)  # type: ignore[arg-type]


def updates(count: int, seed: int) -> list[Update]:
    rng = np.random.default_rng(seed)
    return [
        Update(
            model={"w": rng.normal(size=(2, 3)).astype(np.float32), "s": rng.random(2).astype(np.float32)},
            weight=float(rng.integers(0, 50)),
            metrics={"loss": float(rng.random())},
        )
        for _ in range(count)
    ]


def reduce(q: Question, given: list[Update], places: list[int] | None = None) -> Arrays | None:
    reduction = Reduction(q)
    for place, update in zip(places or range(len(given)), given, strict=True):
        reduction.fold(str(place), place, update)
    assert q.aggregator is not None
    return q.aggregator.finish(reduction.finish().acc)


@given(st.integers(1, 200), st.integers(0, 1000), st.booleans())
def test_the_mean_is_the_float64_mean_up_to_rounding(n: int, seed: int, uniform: bool) -> None:
    given = updates(n, seed)
    got = reduce(question(aggregate.mean(uniform=uniform)), given)
    weights = np.array([1.0 if uniform else u.weight for u in given])
    if not weights.sum():
        assert got is None
        return
    assert got is not None
    assert list(got) == ["w", "s"], "counters keep the server's value"
    for name in got:
        exact = np.average([u.arrays[name].astype(np.float64) for u in given], axis=0, weights=weights)
        np.testing.assert_allclose(got[name], exact - SENT[name], atol=2e-5)


@pytest.mark.parametrize("count", [1, 63, 64, 65, 128, 200])
def test_shards_folded_apart_and_merged_give_the_same_bits(count: int) -> None:
    given = updates(count, count)
    aggregator = aggregate.mean()
    whole = reduce(question(aggregator), given)
    total: Any = None
    for begin in range(0, count, SHARD):
        acc = aggregator.init(SENT)
        for update in given[begin : begin + SHARD]:
            acc = aggregator.fold(acc, update, SENT)
        total = acc if total is None else aggregator.merge(total, acc)
    assert aggregator.finish(total) == whole


def test_shards_are_counted_in_places_so_they_do_not_depend_on_who_failed() -> None:
    given = updates(70, 1)
    places = [p for p in range(72) if p not in (3, 40)]
    aggregator = aggregate.mean()
    first, second = aggregator.init(SENT), aggregator.init(SENT)
    for place, update in zip(places, given, strict=True):
        if place < SHARD:
            first = aggregator.fold(first, update, SENT)
        else:
            second = aggregator.fold(second, update, SENT)
    expected = aggregator.finish(aggregator.merge(first, second))
    assert reduce(question(aggregator), given, places) == expected
    assert reduce(question(aggregator), given) != expected


@given(
    count=st.integers(1, 400),
    missing=st.sets(st.integers(0, 400), max_size=3),
    cuts=st.sets(st.integers(0, 400), max_size=4),
    kind=st.tuples(st.sampled_from(["delta", "model"]), st.sampled_from(["F32", "F64", "BF16"])),
    measured=st.booleans(),
)
def test_updates_side_by_side_are_folded_to_the_same_bits_as_one_by_one(
    count: int, missing: set[int], cuts: set[int], kind: tuple[str, str], measured: bool
) -> None:
    sent = SENT.astype(kind[1])
    given = [u.arrays.astype(kind[1]) for u in updates(count, count)]
    made = [
        Update(
            **{kind[0]: arrays},  # type: ignore[arg-type]
            weight=1.0 + i % 7,
            metrics={"loss": i / 7} if measured else None,
        )
        for i, arrays in enumerate(given)
    ]
    places = [place for place in range(count + len(missing)) if place not in missing][:count]
    made = made[: len(places)]
    one_by_one, together = Reduction(question(aggregate.mean(), sent)), Reduction(question(aggregate.mean(), sent))
    for place, update in zip(places, made, strict=True):
        one_by_one.fold(str(place), place, update)
    bounds = [0, *sorted(cut for cut in cuts if 0 < cut < len(made)), len(made)]
    for begin, end in pairwise(bounds):
        if begin < end:
            rows = Rows.packed(made[begin:end], lambda size: np.empty(size, np.uint8))
            assert not together.fold_rows([str(p) for p in places[begin:end]], places[begin:end], rows)
    expected, got = one_by_one.finish(), together.finish()
    assert got.acc.total.digest() == expected.acc.total.digest()
    assert (got.acc.weight, got.acc.count, got.names) == (expected.acc.weight, expected.acc.count, expected.names)
    assert (got.weights, got.metrics) == (expected.weights, expected.metrics)


def test_one_hot_updates_show_who_was_counted_how_often() -> None:
    n = 130
    sent = Arrays({"w": np.zeros(n)})
    one_hot = [Update(delta={"w": np.eye(n)[i]}, weight=i) for i in range(n)]
    reduction = Reduction(question(aggregate.sum(), sent))
    for place, update in enumerate(one_hot):
        reduction.fold(str(place), place, update)
    reduced = reduction.finish()
    assert reduced.acc.total["w"].tolist() == [1.0] * n
    mean = reduce(question(aggregate.mean(), sent), one_hot)
    assert mean is not None
    np.testing.assert_allclose(mean["w"], np.arange(n) / np.arange(n).sum())


@given(st.lists(st.binary(max_size=9), min_size=1, max_size=150))
def test_joining_keeps_the_cohorts_order(payloads: list[bytes]) -> None:
    aggregator = aggregate.concat()
    joined = reduce(question(aggregator, None), [Update(value={"trees": p}) for p in payloads])
    assert joined is not None
    assert aggregate.split(joined, "trees") == payloads
    assert joined["trees"] == b"".join(payloads)


@given(st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=3))
def test_integers_are_summed_exactly(values: list[int]) -> None:
    got = reduce(question(aggregate.sum(), None), [Update(value={"n": np.array([v])}) for v in values])
    assert got is not None
    assert int(got["n"][0]) == int(np.sum(np.array(values)))


@given(st.integers(0, 10_000), st.integers(1, 40))
def test_slices_are_averaged_over_those_who_sent_them(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    total, count = np.zeros((2, 3)), np.zeros((2, 3))
    given = []
    for _ in range(n):
        rows, columns = rng.integers(0, 3), rng.integers(0, 4)
        x, weight = rng.normal(size=(rows, columns)).astype(np.float32), float(rng.integers(1, 9))
        given.append(Update(model={"w": x}, weight=weight))
        aggregate.mean(slices=True).expects(SENT).check(given[-1])
        total[:rows, :columns] += weight * (x.astype(np.float64) - SENT["w"][:rows, :columns])
        count[:rows, :columns] += weight
    got = reduce(question(aggregate.mean(slices=True)), given)
    assert got is not None
    np.testing.assert_allclose(got["w"], np.divide(total, count, where=count > 0, out=np.zeros((2, 3))), atol=1e-5)
    assert not got["s"].any()


@given(st.sampled_from(["BF16", "F16"]), st.integers(1, 30))
def test_half_precision_is_summed_in_float32(dtype: str, n: int) -> None:
    sent = SENT.astype(dtype)
    models = [u.arrays for u in updates(n, n)]
    halves = [m.merge(Arrays({"n": 0})).astype(dtype) for m in models]
    got = reduce(question(aggregate.mean(uniform=True), sent), [Update(model=h) for h in halves])
    assert got is not None
    assert got["w"].dtype == np.float32
    exact = np.mean([h["w"].astype(np.float64) - sent["w"] for h in halves], axis=0)
    np.testing.assert_allclose(got["w"], exact, atol=1e-6)
