"""Each combiner on small cohorts, names of results, and what is refused."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pytest

import umbel
from umbel import metrics
from umbel.errors import UsageError
from umbel.metrics import Combiner
from umbel.metrics.each import Each

VALUES = np.array([0.5, 0.9, 0.7, 0.1])
WEIGHTS = np.array([1.0, 2.0, 0.0, 1.0])


@pytest.mark.parametrize(
    ("combiner", "expected"),
    [
        (metrics.mean(), {"acc": 0.6}),
        (metrics.sum(), {"acc": 2.2}),
        (metrics.minimum(), {"acc.min": 0.1}),
        (metrics.maximum(), {"acc.max": 0.9}),
        (metrics.quantiles(0, 0.5, 1), {"acc.q0": 0.1, "acc.q50": 0.6, "acc.q100": 0.9}),
        (metrics.quantiles(0.9, 0.1), {"acc.q90": 0.84, "acc.q10": 0.22}),
        (metrics.worst(0.1), {"acc.worst10": 0.1}),
        (metrics.worst(0.5), {"acc.worst50": 0.3}),
        (metrics.worst(0.5, highest=True), {"acc.worst50": 0.8}),
        (metrics.worst(1), {"acc.worst100": 0.55}),
        (metrics.of(lambda v, w: v @ w), {"acc": 2.4}),
        (metrics.of(lambda v, w: {"range": np.ptp(v), "n": len(w)}), {"acc.range": 0.8, "acc.n": 4}),
        (metrics.as_combiner([metrics.mean(), metrics.minimum()]), {"acc": 0.6, "acc.min": 0.1}),
    ],
    ids=lambda value: repr(value).split(" at 0x")[0],
)
def test_a_small_cohort(combiner: Combiner, expected: dict[str, float]) -> None:
    results = combiner.combine("acc", VALUES, WEIGHTS)
    assert results == pytest.approx(expected)
    assert list(results) == list(expected)
    assert {type(v) for v in results.values()} == {float}


@pytest.mark.parametrize(
    ("n", "share", "counted"), [(5, 0.5, 3), (5, 0.3, 2), (5, 0.29, 1), (20, 0.1, 2), (3, 0.01, 1)]
)
def test_the_worst_are_rounded_half_up(n: int, share: float, counted: int) -> None:
    (found,) = metrics.worst(share).combine("m", np.arange(n, dtype=np.float64), np.ones(n)).values()
    assert found == np.arange(counted).mean()


def test_nobody_has_a_weight() -> None:
    assert metrics.mean().combine("m", np.array([1.0, 2.0]), np.zeros(2)) == {"m": 1.5}


def test_weights_are_not_rounded() -> None:
    assert metrics.mean().combine("m", np.array([1.0, 2.0]), np.array([1.0, 3.0])) == {"m": 1.75}
    assert metrics.mean().combine("m", np.array([0.0, 1.0]), np.array([3.0, 7.0])) == {"m": 0.7}


def test_weights_of_any_size() -> None:
    assert metrics.mean().combine("m", np.array([1.0, 3.0]), np.full(2, 1e308)) == {"m": 2}
    assert metrics.mean().combine("m", np.array([1.0, 3.0]), np.full(2, 5e-324)) == {"m": 2}


def test_overflow_gives_no_warning() -> None:
    huge, ones = np.full(3, 1.7e308), np.ones(3)
    assert metrics.sum().combine("m", huge, ones) == {"m": math.inf}
    for combiner in (metrics.mean(), metrics.worst(1), metrics.quantiles(0.3)):
        assert math.isfinite(next(iter(combiner.combine("m", huge, ones).values())))


@pytest.mark.parametrize(
    ("combiner", "expected"),
    [
        (metrics.mean(), {"m": 1e308}),
        (metrics.worst(1), {"m.worst100": 1e308}),
        (
            metrics.quantiles(0, 0.1, 0.5, 0.8),
            {"m.q0": -1.7e308, "m.q10": -0.38e308, "m.q50": 1.7e308, "m.q80": 1.7e308},
        ),
    ],
)
def test_a_sum_or_a_gap_beyond_float64(combiner: Combiner, expected: dict[str, float]) -> None:
    values = np.array([1.7e308, -1.7e308, 1.7e308, 1.7e308, 1.6e308])
    found = combiner.combine("m", np.stack([values, np.arange(5.0)], axis=1), np.ones(5))
    assert {name: float(np.asarray(value)[0]) for name, value in found.items()} == pytest.approx(expected)
    alone = combiner.combine("m", np.arange(5.0), np.ones(5))
    assert {name: np.asarray(value)[1] for name, value in found.items()} == dict(alone)


def test_a_confusion_matrix() -> None:
    rows = [(10.0, {"confusion": np.array([[3, 1], [0, 6]])}), (5.0, {"confusion": np.array([[1, 0], [1, 3]])})]
    (total,) = metrics.combine({"confusion": metrics.sum()}, rows).values()
    np.testing.assert_array_equal(total, [[4, 1], [1, 9]])


@pytest.mark.parametrize(
    ("share", "name"),
    [
        (0.1, "q10"),
        (0.29, "q29"),
        (0.07, "q7"),
        (0.999, "q99.9"),
        (0.005, "q0.5"),
        (1 / 3, "q33.3333333333333"),
        (1, "q100"),
    ],
)
def test_a_quantile_is_named_by_its_percentage(share: float, name: str) -> None:
    assert metrics.quantiles(share).names("m") == (f"m.{name}",)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (metrics.quantiles, "was given none"),
        (lambda: metrics.quantiles(0.5, 0.5), "was given 0.5, 0.5"),
        (lambda: metrics.quantiles(50), r"a quantile is 50\n.*>= 0 and <= 1"),
        (lambda: metrics.quantiles(math.nan), "a quantile is nan"),
        (lambda: metrics.quantiles(True), "a quantile is True"),
        (lambda: metrics.worst(0), r"the share of clients is 0\n.*> 0 and <= 1"),
        (lambda: metrics.worst(10), "the share of clients is 10"),
        (lambda: metrics.worst(0.1, highest=1), "highest is 1"),  # type: ignore[arg-type]  # the point
        (lambda: metrics.as_combiner(()), "an empty tuple"),
        (lambda: metrics.as_combiner("mean"), "'mean' does not say how"),
        (lambda: metrics.as_combiner(None), "None does not say how"),
        (
            lambda: metrics.as_combiner(metrics.mean),
            r"umbel.metrics.mean was not called\n.*write umbel.metrics.mean\(\.\.\.\)",
        ),
        (lambda: metrics.as_combiner((metrics.mean(), metrics.quantiles)), "umbel.metrics.quantiles was not called"),
        (lambda: metrics.as_combiner(Combiner), "is no function"),
        (lambda: metrics.of(3), "3 is no function"),  # type: ignore[arg-type]  # the point
        (
            lambda: metrics.as_combiner((metrics.mean(), metrics.sum())),
            "two combiners of one metric both give 'metric'",
        ),
        (lambda: Each((3,)), "3 is no combiner"),  # type: ignore[arg-type]  # the point
    ],
)
def test_rules_that_make_no_sense(make: Any, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        make()


class TestFunctions:
    def test_an_array_of_results(self) -> None:
        (found,) = metrics.of(lambda v, _: np.sort(v)).combine("m", VALUES, WEIGHTS).values()
        np.testing.assert_array_equal(found, [0.1, 0.5, 0.7, 0.9])

    def test_it_may_do_what_it_likes_with_its_arguments(self) -> None:
        def careless(values: Any, weights: Any) -> float:
            values[:], weights[:] = 0, 0
            return 1.0

        kept = VALUES.copy()
        both = metrics.as_combiner((careless, metrics.maximum()))
        assert both.combine("m", VALUES, WEIGHTS) == {"m": 1.0, "m.max": 0.9}
        np.testing.assert_array_equal(VALUES, kept)

    def test_it_must_return_numbers(self) -> None:
        for bad in (None, "high", {"a": object()}, [1, "2"]):
            with pytest.raises(UsageError, match=r"metric 'm': .* returned"):
                metrics.of(functools.partial(lambda result, *_: result, bad)).combine("m", VALUES, WEIGHTS)

    @pytest.mark.parametrize("wrong", [lambda values, weights: 1 / 0, lambda values: 1.0])  # noqa: ARG005
    def test_one_that_raises_is_named_with_its_metric(self, wrong: Any) -> None:
        with pytest.raises(
            UsageError, match=r"metric 'm': .* raised (ZeroDivision|Type)Error: .*\n.*mend the function"
        ):
            metrics.of(wrong).combine("m", VALUES, WEIGHTS)

    def test_two_functions_that_give_one_name(self) -> None:
        both = metrics.as_combiner((metrics.mean(), lambda *_: 1.0))
        assert both.names("m") == ()
        with pytest.raises(UsageError, match="both give 'm'"):
            both.combine("m", VALUES, WEIGHTS)

    def test_a_class_of_ones_own(self) -> None:
        @final
        @dataclass(frozen=True)
        class Spread(Combiner):
            def combine(self, name: str, values: Any, weights: Any) -> Mapping[str, float]:  # noqa: ARG002
                return {f"{name}.spread": float(np.ptp(values))}

        assert metrics.combine({"m": Spread()}, [(1.0, {"m": 1.0}), (1.0, {"m": 4.0})]) == {"m.spread": 3.0}


class TestCombine:
    def test_nobody_answered(self) -> None:
        assert metrics.combine({"loss": metrics.mean()}, []) == {}

    def test_numbers_of_any_kind(self) -> None:
        rows: list[Any] = [(1.0, {"m": 1}), (1.0, {"m": np.float32(2)}), (2.0, {"m": True}), (0.0, {"m": np.array(9)})]
        assert metrics.combine({}, rows) == {"m": 1.25}

    def test_shapes_differ(self) -> None:
        rows: list[tuple[float, dict[str, Any]]] = [(1.0, {"m": np.zeros(3)}), (1.0, {"m": np.zeros((3, 1))})]
        with pytest.raises(UsageError, match=r"metric 'm' has shape \(3,\) for one client and \(3, 1\) for another"):
            metrics.combine({}, rows)
        with pytest.raises(UsageError, match=r"metric 'm' has shape \(\) for one client and \(1,\) for another"):
            metrics.combine({}, [(1.0, {"m": 2.0}), (1.0, {"m": np.zeros(1)})])

    @pytest.mark.parametrize("bad", ["0.5", None, 1j, [None]])
    def test_not_a_number(self, bad: Any) -> None:
        with pytest.raises(UsageError, match="metric 'm' is not made of numbers"):
            metrics.combine({}, [(1.0, {"m": bad})])

    @pytest.mark.parametrize("own", [{"loss.max": 2.0, "loss": 1.0}, {"loss": 1.0, "loss.max": 2.0}])
    def test_a_rule_counts_before_a_metric_of_the_name_of_its_result(self, own: dict[str, Any]) -> None:
        rows: list[tuple[float, dict[str, Any]]] = [(1.0, {"loss": 0.5, "n": 1.0}), (1.0, own)]
        said: list[str] = []
        found = metrics.combine({"loss": metrics.maximum()}, rows, warn=said.append)
        assert found == {"loss.max": 1.0, "n": 1.0}
        assert said == ["'loss.max' of the metric 'loss.max' is left out: 'loss' has a result of that name"]

    def test_of_two_rules_the_first_counts(self) -> None:
        """Which one cannot know before a client returns both."""
        rules = metrics.as_rules({"loss": lambda values, _: {"p": values[0] / 3}, "loss.p": metrics.mean()})
        said: list[str] = []
        found = metrics.combine(rules, [(1.0, {"loss.p": 2.0, "loss": 3.0})], warn=said.append)
        assert found == {"loss.p": 1.0}
        assert said == ["'loss.p' of the metric 'loss.p' is left out: 'loss' has a result of that name"]

    def test_two_rules_that_give_one_name_are_refused_where_they_stand(self) -> None:
        wrong = {"loss": metrics.maximum(), "loss.max": metrics.mean()}
        with pytest.raises(UsageError, match=r"metrics 'loss' and 'loss.max' both give a result called 'loss.max'"):
            umbel.fed_avg(metrics=wrong)
