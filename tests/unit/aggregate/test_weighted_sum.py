"""The running sum, bit by bit against the plain text of its definition, whatever the layouts of its summands."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel import Arrays, Update, aggregate
from umbel.aggregate import weighted_sum
from umbel.aggregate.weighted_sum import WeightedSum, divided
from umbel.arrays import BLOCK
from umbel.buffers import allocating
from umbel.rows import Rows

WIDE = {"f8": "f8", "f4": "f4", "f2": "f4"}
ENTRIES = st.dictionaries(
    st.sampled_from("abcdefg"), st.tuples(st.sampled_from([*WIDE, "i8"]), st.integers(0, 9)), min_size=1
)


def drawn(entries: dict[str, tuple[str, int]], order: list[str], seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    values = {name: (4 * rng.normal(size=size)).astype(dtype) for name, (dtype, size) in sorted(entries.items())}
    return {name: values[name] for name in order}


@given(
    entries=ENTRIES,
    buffers=st.sets(st.sampled_from("abcdefg")),
    orders=st.lists(st.permutations("abcdefg"), min_size=2, max_size=4),
    delta=st.booleans(),
)
def test_of_models_in_any_order_of_entries(
    entries: dict[str, tuple[str, int]], buffers: set[str], orders: list[list[str]], delta: bool
) -> None:
    roles = {name: "buffer" for name in buffers if name in entries and entries[name][0] != "i8"}
    orders = [[name for name in order if name in entries] for order in orders]
    sent = Arrays(drawn(entries, orders[0], 0), roles=roles)  # type: ignore[arg-type]  # these are roles
    total, expected = WeightedSum.empty(sent), {n: np.zeros(s, WIDE[d]) for n, (d, s) in entries.items() if d != "i8"}
    for i, order in enumerate(orders[1:], 1):
        # counters may be missing, and the last update brings none
        kept = [name for name in order if entries[name][0] != "i8" or i < len(orders) - 1]
        values, weight = drawn(entries, kept, i), 0.1 + i
        total.add(Update(delta=values) if delta else Update(model=values), sent, weight)
        for name, sum_so_far in expected.items():
            x = values[name].astype(sum_so_far.dtype)
            x = x if delta else x - sent[name].astype(sum_so_far.dtype)
            expected[name] = sum_so_far + x * sum_so_far.dtype.type(weight)
    assert total.total is not None
    assert set(total.total) == set(expected)
    for name, value in expected.items():
        assert total.total[name].tobytes() == value.tobytes(), name


@pytest.mark.parametrize("size", [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
@pytest.mark.parametrize("dtype", WIDE)
def test_of_entries_larger_than_a_block(size: int, dtype: str) -> None:
    rng = np.random.default_rng(size)
    sent = Arrays({"w": rng.normal(size=size).astype(dtype)})
    total, expected = WeightedSum.empty(sent), np.zeros(size, WIDE[dtype])
    for weight in (2.0, 0.3):
        x = rng.normal(size=size).astype(dtype)
        total.add(Update(model={"w": x}), sent, weight)
        expected = expected + (x.astype(WIDE[dtype]) - sent["w"].astype(WIDE[dtype])) * expected.dtype.type(weight)
    other = WeightedSum.empty(sent)
    other.add(Update(delta={"w": np.ones(size, WIDE[dtype])}), sent, 1.0)
    total.merge(other)
    assert total.total is not None
    assert total.total["w"].tobytes() == (expected + 1).tobytes()
    assert total.count == 3
    assert total.weight == pytest.approx(3.3)


@given(st.lists(st.tuples(st.permutations("abc"), st.integers(1, 5)), min_size=1, max_size=4))
def test_of_values_in_any_order_of_entries(given: list[tuple[list[str], int]]) -> None:
    total = WeightedSum.empty(None, exact=True)
    expected: dict[str, Any] = {"a": np.zeros(2), "b": 0, "c": np.zeros(3, "f4")}
    for order, n in given:
        values: dict[str, Any] = {"a": np.full(2, n / 7), "b": 2**60 + n, "c": np.full(3, n, "f4")}
        total.add(Update(value={name: values[name] for name in order}), None, 1.0)
        expected = {name: expected[name] + values[name] for name in expected}
    assert total.total is not None
    assert int(total.total["b"]) == expected["b"], "exactly"
    for name in "ac":
        assert total.total[name].tobytes() == expected[name].tobytes()


def test_of_a_model_whose_file_has_another_layout() -> None:
    table = {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}
    table["b"] = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    header = json.dumps(table).encode().ljust(256)
    data = np.array([20, 10], np.float32).tobytes()
    sent = Arrays.from_bytes(len(header).to_bytes(8, "little") + header + data)
    total = WeightedSum.empty(sent)
    total.add(Update(model={"a": np.array([11], np.float32), "b": np.array([22], np.float32)}), sent, 1.0)
    assert total.total is not None
    assert (total.total["a"][0], total.total["b"][0]) == (1, 2)


def test_of_unsigned_integers_and_booleans() -> None:
    adding = aggregate.sum()
    acc = adding.init(None)
    for value in (2**63, 2**62):
        update = Update(value={"u": np.array([value], np.uint64), "small": np.uint8(200), "yes": np.array([True])})
        acc = adding.fold(acc, update, None)
    result = adding.finish(acc)
    assert result is not None
    assert int(result["u"][0]) == 2**63 + 2**62
    assert (int(result["small"]), result["yes"].tolist()) == (400, [2])


def test_of_q_fair_buffers_move_and_are_not_in_the_norm() -> None:
    fair = aggregate.q_fair(q=1.0, lr=0.5)
    sent = Arrays({"w": np.zeros(2), "mean": np.zeros(1)}, roles={"mean": "buffer"})
    update = Update(model={"w": np.array([3.0, 4.0]), "mean": np.array([100.0])}, metrics={"loss": 2.0})
    result = fair.finish(fair.fold(fair.init(sent), update, sent))
    assert result is not None
    share = 2 * 2.0 / ((2 * 5.0) ** 2 + 2 * 2.0)  # L F^q / (q F^(q-1) |L dw|^2 + L F^q)
    np.testing.assert_allclose(result["w"], [3 * share, 4 * share])
    np.testing.assert_allclose(result["mean"], [100 * share])


@pytest.mark.parametrize(("uniform", "expected"), [(True, [2.0, 3.0]), (False, [2.5, 3.0])])
def test_of_slices_with_and_without_weights(uniform: bool, expected: list[float]) -> None:
    averaging = aggregate.mean(slices=True, uniform=uniform)
    sent = Arrays({"w": np.zeros(2)})
    acc = averaging.init(sent)
    for values, weight in (([1.0], 1.0), ([3.0, 3.0], 3.0)):
        acc = averaging.fold(acc, Update(model={"w": np.array(values)}, weight=weight), sent)
    result = averaging.finish(acc)
    assert result is not None
    assert result["w"].tolist() == expected


@pytest.mark.parametrize("size", [3, 5000])
@pytest.mark.parametrize("kind", ["model", "delta", "value"])
def test_of_several_at_once_is_that_of_each_in_turn(size: int, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weighted_sum, "_BLOCK", 1000)
    rng = np.random.default_rng(size)
    sent = Arrays({"w": rng.normal(size=size).astype("f4")}) if kind != "value" else None
    given: list[Any] = [{kind: {"w": rng.normal(size=size).astype("f4")}} for _ in range(4)]
    updates = [Update(**values) for values in given]
    weights = [1.0, 0.3, 7.0, 1.0]
    together, packed, in_turn = (WeightedSum.empty(sent) for _ in range(3))
    together.add_rows(Rows.over(updates), sent, weights)
    packed.add_rows(Rows.packed(updates, lambda size: np.empty(size, np.uint8)), sent, weights)
    for update, weight in zip(updates, weights, strict=True):
        in_turn.add(update, sent, weight)
    for total in (together, packed):
        assert total.total == in_turn.total
        assert (total.weight, total.count) == (in_turn.weight, in_turn.count)


LONG = 20_000  # elements that are put into memory that is lent


def empty_in_used_memory(sent: Arrays) -> WeightedSum:
    with allocating(lambda size: np.full(size, 0xFF, np.uint8)):  # NaN, everywhere
        return WeightedSum.empty(sent)


@pytest.mark.parametrize("added", [("a", "b"), ("b", "a"), ("a",), ("b",), ()])
def test_begins_at_zero_whatever_was_in_its_memory(added: tuple[str, ...]) -> None:
    sent = Arrays({"a": np.zeros(LONG, "f4"), "b": np.zeros(LONG, "f8"), "c": np.zeros(LONG, "f4")}).select("[ab]")
    total, later = empty_in_used_memory(sent), empty_in_used_memory(sent)
    values = {name: np.full(LONG, 0.5, sent[name].dtype) for name in added}
    if added:
        total.add(Update(delta=values), sent, 3.0)
        total.add(Update(delta=values), sent, 1.0)
    total.merge(later)
    later.merge(total)
    for it in (total, later):
        assert it.total is not None
        assert {name: set(it.total[name]) for name in "ab"} == {name: {2.0 if name in added else 0.0} for name in "ab"}


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda total: pickle.loads(pickle.dumps(total)), copy.copy])  # noqa: S301
def test_a_copy_of_nothing_is_nothing(copied: Any) -> None:
    sent = Arrays({"w": np.zeros(LONG, "f4")})
    total = copied(empty_in_used_memory(sent))
    total.add_rows(Rows.over([Update(delta={"w": np.ones(LONG, "f4")})])[:0], sent, [])
    assert set(total.total["w"]) == {0.0}
    total.add(Update(delta={"w": np.ones(LONG, "f4")}), sent, 2.0)
    assert (set(total.total["w"]), total.weight, total.count) == ({2.0}, 2.0, 1)


def test_what_fails_at_first_leaves_nothing() -> None:
    sent = Arrays({"w": np.zeros(LONG, "f4")})
    total = empty_in_used_memory(sent)
    with pytest.raises(OverflowError):
        total.add(Update(delta={"w": np.ones(LONG, "f4")}), sent, 10**400)
    assert total.total is not None
    assert set(total.total["w"]) == {0.0}


@pytest.mark.parametrize("count", [1, 3])
def test_begins_at_plus_zero(count: int) -> None:
    sent = Arrays({"w": np.zeros(LONG, "f4")})
    nothing = Rows.over([Update(delta={"w": np.full(LONG, -0.0, "f4")})] * count)
    total = empty_in_used_memory(sent)
    total.add_rows(nothing, sent, [1.0] * count)
    assert total.total is not None
    assert not np.signbit(total.total["w"]).any(), "as if it had been added to a zero"


def a_sum(values: list[float], *, weight: float) -> WeightedSum:
    total = WeightedSum.empty(sent := Arrays({"w": np.zeros(len(values), "f4")}))
    total.add(Update(delta={"w": np.array(values, "f4")}), sent, weight)
    return total


def test_its_mean_takes_its_place() -> None:
    averaging, acc = aggregate.mean(), a_sum([1.0, 3.0], weight=3.0)
    assert acc.total is not None
    total, expected = acc.total, divided(acc.total, 3.0)
    mean = averaging.finish(acc)
    assert mean is not None
    assert mean == expected == averaging.finish(acc)
    assert np.shares_memory(total.raw("w"), mean.raw("w"))


def test_its_mean_leaves_alone_what_others_look_at() -> None:
    acc = a_sum([1.0, 3.0], weight=2.0)
    assert acc.total is not None
    kept = acc.total.freeze()
    assert aggregate.mean().finish(acc) == Arrays({"w": np.array([1.0, 3.0], "f4")})
    assert kept["w"].tolist() == [2.0, 6.0]


@pytest.mark.parametrize(("largest", "harmless"), [(1.0, True), (1e20, False), (np.inf, False), (np.nan, False)])
def test_its_mean_knows_whether_it_is_harmless(largest: float, harmless: bool) -> None:
    mean = aggregate.mean().finish(a_sum([1.0, largest], weight=2.0))
    assert mean is not None
    assert mean.harmless is harmless
