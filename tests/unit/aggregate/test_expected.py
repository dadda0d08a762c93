"""What a client may return: each wrong update is refused with the entry's name and what to do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from umbel import Arrays, Update, aggregate
from umbel.errors import BadUpdate

W = np.zeros((2, 2), np.float32)
SENT = Arrays({"w": W, "b": np.zeros(2, np.float32), "n": 3, "frozen": W}, roles={"frozen": "frozen"})
GOOD = {"w": W, "b": np.zeros(2, np.float32)}


@pytest.mark.parametrize(
    ("change", "entry", "says"),
    [
        ({"w": np.full((2, 2), np.nan, np.float32)}, "w", "4 of 4 elements"),
        ({"b": np.array([0, np.inf], np.float32)}, "b", r"the first at \(1,\) is inf"),
        ({"b": np.array([0, -np.inf], np.float32)}, "b", r"the first at \(1,\) is -inf"),
        ({"w": np.zeros((2, 3), np.float32)}, "w", r"shape \(2, 3\), \(2, 2\) was sent"),
        ({"w": np.zeros((2, 2))}, "w", "dtype F64, F32 was sent"),
        ({"extra": W}, "extra", "was not in the model"),
        ({"w": None}, "w", "missing"),
    ],
)
def test_a_wrong_model_is_refused(change: dict[str, Any], entry: str, says: str) -> None:
    values = {name: value for name, value in (GOOD | change).items() if value is not None}
    with pytest.raises(BadUpdate, match=says) as caught:
        aggregate.mean().expects(SENT).check(Update(model=values))
    assert caught.value.entry == entry


def test_what_the_server_keeps_need_not_come_back() -> None:
    aggregate.mean().expects(SENT).check(Update(model=GOOD))
    aggregate.mean().expects(SENT).check(Update(model=dict(SENT.items())))


def test_what_would_overflow_in_the_sum_is_refused() -> None:
    for huge, weight in ((3e38, 1), (1e25, 1e10), (1e31, 100)):
        for signs in (1, -1, np.array([[1, -1], [1, -1]])):  # opposite ones would cancel in a sum over the entry
            update = Update(model=GOOD | {"w": (signs * np.full((2, 2), huge)).astype(np.float32)}, weight=weight)
            with pytest.raises(BadUpdate, match="'w' is finite, but too large to be summed"):
                aggregate.mean().expects(SENT).check(update)
    half = Arrays({"w": np.full(100, 6e4, np.float16)})
    aggregate.mean().expects(half).check(Update(model=half))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
def test_what_is_not_finite_is_refused_in_each_precision(dtype: str, bad: float) -> None:
    wrong = Arrays({"b": np.zeros(2), "w": np.array([[0, 1], [bad, 0]])}).astype(dtype)
    with pytest.raises(BadUpdate, match=r"'w' is not finite: 1 of 4 elements, the first at \(1, 0\)"):
        aggregate.mean().expects(wrong).check(Update(model=wrong))


def test_a_slice_has_as_many_axes() -> None:
    expected = aggregate.mean(slices=True).expects(SENT)
    expected.check(Update(model={"w": np.zeros((1, 2), np.float32)}))
    for shape in ((3, 2), (2,), (1, 1, 1)):
        with pytest.raises(BadUpdate, match="'w' has shape"):
            expected.check(Update(model={"w": np.zeros(shape, np.float32)}))


def test_a_value_is_no_model_and_a_model_no_value() -> None:
    with pytest.raises(BadUpdate, match="returned a value"):
        aggregate.mean().expects(SENT).check(Update(value=GOOD))
    with pytest.raises(BadUpdate, match="returned a model"):
        aggregate.sum().expects(None).check(Update(model=GOOD))


def test_a_payload_may_not_be_larger_than_its_bound() -> None:
    with pytest.raises(BadUpdate, match="100 bytes, at most 99"):
        aggregate.concat(max_bytes=99).expects(None).check(Update(value={"trees": bytes(100)}))


def test_a_delta_of_a_half_precision_model_may_be_float32() -> None:
    sent = SENT.astype("BF16")
    aggregate.mean().expects(sent).check(Update(delta=GOOD))
    with pytest.raises(BadUpdate, match="BF16 was sent"):
        aggregate.mean().expects(sent).check(Update(model=GOOD))


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        ("F64", r"\.astype\(np\.float64\)"),
        ("F32", r"\.astype\(np\.float32\)"),
        ("F16", r"\.astype\(np\.float16\)"),
        ("BF16", r"umbel\.Update\(delta=\.\.\.\) in float32"),
    ],
)
def test_what_to_do_about_a_wrong_dtype_names_the_right_one(dtype: str, words: str) -> None:
    wrong = SENT.astype("F16" if dtype == "F64" else "F64")
    with pytest.raises(BadUpdate, match=rf"{dtype} was sent\n.*{words}"):
        aggregate.mean().expects(SENT.astype(dtype)).check(Update(model=wrong))


@pytest.mark.parametrize("weight", [-1, float("nan"), float("inf"), "many", None, 1e13, 1e-13])
def test_a_weight_is_a_finite_number_not_below_zero(weight: Any) -> None:
    with pytest.raises(BadUpdate, match="weight"):
        Update(model=GOOD, weight=weight)


@pytest.mark.parametrize("arguments", [{}, {"model": GOOD, "delta": GOOD}, {"model": [1]}, {"value": {"x": "text"}}])
def test_an_update_is_exactly_one_thing_made_of_arrays(arguments: Any) -> None:
    with pytest.raises(BadUpdate):
        Update(**arguments)


@pytest.mark.parametrize("metrics", [{"loss": float("nan")}, {"c": np.zeros(101)}, {"x": "good"}, [1]])
def test_metrics_are_at_most_a_hundred_finite_numbers(metrics: Any) -> None:
    with pytest.raises(BadUpdate, match="metric"):
        Update(model=GOOD, metrics=metrics)


def test_q_fed_avg_needs_the_loss() -> None:
    aggregator = aggregate.q_fair(q=1, lr=0.1)
    with pytest.raises(BadUpdate, match="'loss'"):
        aggregator.admit(aggregator.init(SENT), Update(model=GOOD))


def test_values_of_different_shapes_are_refused_by_name() -> None:
    aggregator = aggregate.sum()
    acc = aggregator.fold(aggregator.init(None), Update(value={"counts": np.zeros(3)}), None)
    for other in ({"counts": np.zeros(4)}, {"other": np.zeros(3)}, {"counts": np.zeros(3), "more": 1}):
        with pytest.raises(BadUpdate, match=r"counts|more"):
            aggregator.admit(acc, Update(value=other))


def test_values_that_cannot_be_joined_are_refused_by_name() -> None:
    aggregator = aggregate.concat()
    acc = aggregator.fold(aggregator.init(None), Update(value={"rows": np.zeros((3, 2))}), None)
    aggregator.admit(acc, Update(value={"rows": np.zeros((0, 2))}))
    for other in ({"rows": np.zeros((3, 4))}, {"rows": np.zeros(2)}, {"rows": np.zeros((3, 2), np.float32)}, {"x": 1}):
        with pytest.raises(BadUpdate, match="entry 'rows' is "):
            aggregator.admit(acc, Update(value=other))
