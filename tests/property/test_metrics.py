"""What holds for every way to combine metrics."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from umbel import metrics
from umbel.codec import decode, encode
from umbel.metrics import Combiner

Values = npt.NDArray[np.float64]

numbers = st.floats(-1e6, 1e6)
shares = st.floats(0, 1)
combiners: st.SearchStrategy[Combiner] = st.one_of(
    st.just(metrics.mean()),
    st.just(metrics.sum()),
    st.just(metrics.minimum()),
    st.just(metrics.maximum()),
    st.builds(metrics.worst, st.floats(0.01, 1), highest=st.booleans()),
    st.lists(st.integers(0, 1000), min_size=1, max_size=4, unique=True).map(
        lambda qs: metrics.quantiles(*(q / 1000 for q in qs))
    ),
    st.just(metrics.as_combiner((metrics.mean(), metrics.quantiles(0.1, 0.9), metrics.worst(0.1)))),
)


@st.composite
def cohorts(draw: st.DrawFn, shape: tuple[int, ...] | None = None) -> tuple[Values, Values]:
    n = draw(st.integers(1, 30))
    shape = draw(st.sampled_from([(), (3,), (2, 2)])) if shape is None else shape
    values = draw(hnp.arrays(np.float64, (n, *shape), elements=numbers))
    weights = draw(hnp.arrays(np.float64, n, elements=st.floats(0, 1e6)))
    return values, weights


@given(combiners, cohorts())
def test_numbers_give_numbers_and_arrays_arrays(combiner: Combiner, cohort: tuple[Values, Values]) -> None:
    values, weights = cohort
    kept = values.copy(), weights.copy()
    results = combiner.combine("loss", values, weights)
    assert tuple(results) == combiner.names("loss")
    for result in results.values():
        if values.ndim == 1:
            assert type(result) is float
        else:
            assert isinstance(result, np.ndarray)
            assert (result.dtype.name, result.shape) == ("float64", values.shape[1:])
    np.testing.assert_array_equal(values, kept[0])
    np.testing.assert_array_equal(weights, kept[1])


@given(combiners, cohorts(shape=(2, 2)))
def test_each_element_is_combined_by_itself(combiner: Combiner, cohort: tuple[Values, Values]) -> None:
    values, weights = cohort
    whole = combiner.combine("m", values, weights)
    for place in np.ndindex(2, 2):
        alone = combiner.combine("m", np.ascontiguousarray(values[:, place[0], place[1]]), weights)
        for name, value in alone.items():
            found: Any = whole[name]
            assert found[place] == pytest.approx(value, rel=1e-9, abs=1e-6)


@given(combiners, cohorts(), st.randoms(use_true_random=False))
def test_the_order_of_clients_matters_to_rounding_only(
    combiner: Combiner, cohort: tuple[Values, Values], shuffler: Any
) -> None:
    values, weights = cohort
    order = list(range(len(values)))
    shuffler.shuffle(order)
    one, other = combiner.combine("m", values, weights), combiner.combine("m", values[order], weights[order])
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], rtol=1e-9, atol=1e-5)


@given(combiners, cohorts())
def test_the_same_values_give_the_same_bits(combiner: Combiner, cohort: tuple[Values, Values]) -> None:
    values, weights = cohort
    one, other = combiner.combine("m", values, weights), combiner.combine("m", values.copy(), weights.copy())
    for name, value in one.items():
        assert np.asarray(value).tobytes() == np.asarray(other[name]).tobytes()


@given(cohorts(shape=()))
def test_the_mean_is_that_of_the_definition(cohort: tuple[Values, Values]) -> None:
    values, weights = cohort
    total = math.fsum(weights)
    shares = weights / total if total else np.full(len(values), 1 / len(values))
    exact = math.fsum(v * s for v, s in zip(values, shares, strict=True))
    mean: Any = metrics.mean().combine("m", values, weights)["m"]
    assert mean == pytest.approx(exact, rel=1e-9, abs=1e-300 + 1e-9 * float(np.abs(values).max()))
    counted = values[weights > 0] if total else values
    assert counted.min() <= mean <= counted.max()


@given(numbers, st.lists(st.floats(0, 1e6), min_size=1, max_size=20))
def test_the_mean_of_one_value_is_that_value(value: float, weights: list[float]) -> None:
    """To the last bit: a single client's accuracy is not shown as 0.7000000000000001."""
    assert metrics.mean().combine("m", np.full(len(weights), value), np.array(weights)) == {"m": value}


@given(cohorts(shape=()), st.floats(0, 1))
def test_quantiles_interpolate(cohort: tuple[Values, Values], share: float) -> None:
    values, weights = cohort
    ordered = np.sort(values)
    place = share * (len(values) - 1)
    low, part = ordered[math.floor(place)], place - math.floor(place)
    expected = low + part * (ordered[math.ceil(place)] - low)
    (found,) = metrics.quantiles(share).combine("m", values, weights).values()
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-5)


@given(cohorts(shape=()), st.floats(0.001, 1))
def test_the_worst_lie_between_the_extreme_and_the_mean(cohort: tuple[Values, Values], share: float) -> None:
    values, weights = cohort
    (low,) = metrics.worst(share).combine("m", values, weights).values()
    (high,) = metrics.worst(share, highest=True).combine("m", values, weights).values()
    centre, slack = float(np.mean(values)), 1e-6
    assert values.min() <= low <= centre + slack
    assert centre - slack <= high <= values.max()
    (mirrored,) = metrics.worst(share).combine("m", -values, weights).values()
    assert mirrored == -high


@given(combiners)
def test_a_combiner_travels(combiner: Combiner) -> None:
    assert decode(encode(combiner, lambda _: ""), lambda _: None) == combiner  # type: ignore[arg-type, return-value]  # no arrays


rows = st.lists(
    st.tuples(st.floats(0, 100), st.dictionaries(st.sampled_from(["loss", "accuracy", "f1"]), numbers)), max_size=12
)


@given(rows)
def test_a_metric_is_combined_over_those_who_have_it(rows: list[tuple[float, dict[str, float]]]) -> None:
    rules = {"loss": metrics.as_combiner((metrics.mean(), metrics.maximum())), "never": metrics.sum()}
    results = metrics.combine(rules, rows)
    present = list(dict.fromkeys(name for _, row in rows for name in row))
    assert list(results) == [key for name in present for key in ([name, f"{name}.max"] if name == "loss" else [name])]
    for name in present:
        mine = [(weight, row[name]) for weight, row in rows if name in row]
        alone = metrics.mean().combine(name, np.array([v for _, v in mine]), np.array([w for w, _ in mine]))
        assert results[name] == alone[name]
