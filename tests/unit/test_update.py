from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel import Arrays, Metrics, Update
from umbel.errors import BadUpdate

W = {"w": np.ones(2)}


@pytest.mark.parametrize("kind", ["model", "delta", "value"])
@pytest.mark.parametrize("given", [W, Arrays(W), OrderedDict(W)])
def test_an_update_holds_one_set_of_arrays(kind: str, given: Any) -> None:
    update = Update(**{kind: given})
    assert (update.kind, update.arrays, update.weight, update.metrics, update.extra) == (kind, Arrays(W), 1.0, {}, {})
    assert isinstance(given, Arrays) is (update.arrays is given), "and Arrays are not copied"


@pytest.mark.parametrize("given", [{}, {"model": W, "delta": W}, {"model": W, "value": W, "delta": W}])
def test_exactly_one_of_them_is_given(given: dict[str, Any]) -> None:
    with pytest.raises(BadUpdate, match="exactly one of model=, delta= and value="):
        Update(**given)


@pytest.mark.parametrize("given", [3, [1], "w", np.ones(2), (("w", 1),)])
def test_arrays_come_by_name(given: Any) -> None:
    with pytest.raises(BadUpdate, match="model= is a "):
        Update(model=given)
    with pytest.raises(BadUpdate, match=r"extra\['c'\] is a "):
        Update(model=W, extra={"c": given})


def test_an_entry_that_cannot_be_carried_is_named() -> None:
    with pytest.raises(BadUpdate, match="value=: entry 'x' has dtype complex128") as caught:
        Update(value={"x": 1j})
    assert caught.value.entry == "x"


@given(st.one_of(st.just(0), st.floats(1e-12, 1e12), st.integers(1, 10**12), st.booleans()))
def test_lawful_weights(weight: float) -> None:
    assert Update(model=W, weight=weight).weight == float(weight)
    assert type(Metrics({}, weight=weight).weight) is float


@pytest.mark.parametrize(
    "weight",
    [-1, -0.001, 1e-13, 1e13, float("nan"), float("inf"), -float("inf"), None, "x", [1, 2], {}, np.ones(2), 10**400],
)
def test_unlawful_weights(weight: Any) -> None:
    for make in (lambda: Update(model=W, weight=weight), lambda: Metrics({}, weight=weight)):
        with pytest.raises(BadUpdate, match="weight is "):
            make()
    with pytest.raises(BadUpdate, match="weight is "):
        Update(model=W).replace(weight=-1)


def test_weights_of_other_libraries_are_numbers() -> None:
    weights: list[Any] = [np.float32(3), np.int64(3), np.array(3), np.array([3])[0]]
    for weight in weights:
        assert Update(model=W, weight=weight).weight == 3.0


PRINTABLE = st.text(max_size=9).filter(str.isprintable)


@given(st.dictionaries(PRINTABLE, st.floats(allow_nan=False, allow_infinity=False), max_size=20))
def test_lawful_metrics(metrics: dict[str, float]) -> None:
    assert Update(model=W, metrics=metrics).metrics == metrics
    assert Metrics(metrics).values == metrics


@pytest.mark.parametrize("value", [3, True, np.float32(3), np.int8(3), np.array(3.0), np.array([3.0])[0]])
def test_a_metric_becomes_a_float(value: Any) -> None:
    found = Metrics({"x": value})["x"]
    assert (type(found), found) == (float, float(value))


def test_a_small_array_is_a_metric() -> None:
    found = Metrics({"x": [[1, 2], [3, 4]]})["x"]
    assert (found.dtype, found.tolist()) == (np.float64, [[1, 2], [3, 4]])


def test_a_metric_stays_what_it_was_though_the_array_is_used_again() -> None:
    confusion = np.array([[1.0, 2.0], [3.0, 4.0]])
    found = Metrics({"confusion": confusion}), Update(model=W, metrics={"confusion": confusion})
    confusion[:] = 0
    assert found[0]["confusion"].tolist() == found[1].metrics["confusion"].tolist() == [[1, 2], [3, 4]]


def test_a_tensor_is_a_metric() -> None:
    torch = pytest.importorskip("torch")
    loss = torch.tensor(2.0, requires_grad=True) * 2
    assert Metrics({"loss": loss, "half": loss.bfloat16()}).values == {"loss": 4.0, "half": 4.0}


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), [1.0, float("nan")], None, "x", {}, object(), 1j, [[1], [1, 2]], 10**400]
)
def test_unlawful_metrics(value: Any) -> None:
    for make in (lambda: Update(model=W, metrics={"x": value}), lambda: Metrics({"x": value})):
        with pytest.raises(BadUpdate, match="metric 'x' is "):
            make()


def test_metrics_are_few_and_short() -> None:
    Metrics({str(i): 1.0 for i in range(100)})
    Metrics({"x": np.ones((10, 10))})
    for metrics in ({str(i): 1.0 for i in range(101)}, {"x": np.ones(101)}, {"x": np.ones(60), "y": np.ones(41)}):
        with pytest.raises(BadUpdate, match="there are 101 numbers in metrics, 100 may leave a client"):
            Metrics(metrics)
    with pytest.raises(BadUpdate, match="65 characters"):
        Metrics({"x" * 65: 1.0})
    for wrong in ([1.0], "loss", 3.0, [("a", 1.0)]):
        with pytest.raises(BadUpdate, match="metrics are a "):
            Metrics(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "\x1b[2J", "a\u2028b", "\ud800"])
def test_the_name_of_a_metric_can_be_printed(name: str) -> None:
    """As a server wants it: what counts in a simulation counts in a deployment."""
    with pytest.raises(BadUpdate, match=r"a metric is called .*\n.*leave out what cannot be printed"):
        Metrics({"fine": 0.0, name: 1.0})


def test_a_metric_without_elements_is_refused() -> None:
    """Else clients that return a number would be refused beside it."""
    with pytest.raises(BadUpdate, match="metric 'loss' has no elements"):
        Metrics({"loss": []})


def test_a_changed_copy() -> None:
    update = Update(model=W, weight=3, metrics={"loss": 1.0}, extra={"c": W}, steps=5)
    other = update.replace(Arrays({"v": np.zeros(1)}), kind="delta", weight=4)
    assert (other.kind, other.weight, other.metrics, other.extra, other.steps) == (
        "delta",
        4.0,
        {"loss": 1.0},
        {"c": Arrays(W)},
        5,
    )
    assert (update.kind, update.weight, list(update.arrays)) == ("model", 3.0, ["w"])
    assert update.replace(metrics={"n": 1}).metrics == {"n": 1.0}
    assert "weight=3.0" in repr(update)
    assert repr(Metrics({"x": 1.0}, weight=2)) == "Metrics({'x': 1.0}, weight=2.0)"
