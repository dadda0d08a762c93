"""Each rule's arguments, and its first steps by hand; the golden vectors are in tests/golden."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from umbel import Arrays, entries, optimize
from umbel.errors import UsageError
from umbel.optimize import ServerOptimizer

NO_NUMBER: list[Any] = [math.nan, math.inf, -1, True, "1", None]
ADAPTIVE = [optimize.adam, optimize.yogi, optimize.adagrad]


@pytest.mark.parametrize("make", [optimize.sgd, optimize.momentum, *ADAPTIVE])
@pytest.mark.parametrize("bad", [*NO_NUMBER, 0])
def test_the_learning_rate(make: Any, bad: Any) -> None:
    with pytest.raises(UsageError, match=r"\(\): lr is .*\n.*a finite number > 0"):
        make(bad)


@pytest.mark.parametrize("bad", [*NO_NUMBER, 1, 1.5])
def test_decays(bad: Any) -> None:
    for make in ADAPTIVE:
        with pytest.raises(UsageError, match=r"beta1 is .*\n.*a finite number >= 0 and < 1"):
            make(beta1=bad)
    for make in (optimize.adam, optimize.yogi):
        with pytest.raises(UsageError, match="beta2 is"):
            make(beta2=bad)
    with pytest.raises(UsageError, match=r"momentum\(\): momentum is"):
        optimize.momentum(momentum=bad)


@pytest.mark.parametrize("bad", [*NO_NUMBER, 0])
def test_tau(bad: Any) -> None:
    for make in ADAPTIVE:
        with pytest.raises(UsageError, match=r"tau is .*\n.*a finite number > 0"):
            make(tau=bad)


def test_nesterov() -> None:
    with pytest.raises(UsageError, match="nesterov is 1"):
        optimize.momentum(nesterov=1)  # type: ignore[arg-type]  # the point


def test_numbers_of_any_kind_make_the_same_value() -> None:
    """So that a recipe does not change, and NumPy's float64 does not widen float32 arithmetic."""
    one, other = optimize.adam(np.float64(1), tau=np.float64(0.5)), optimize.adam(1, tau=0.5)
    assert one == other
    assert repr(one) == repr(other)
    model = Arrays({"w": np.zeros(2, np.float32)})
    moved, _ = one.step(model, model + 1, one.init(model))
    assert moved["w"].dtype == np.float32


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (optimize.sgd(0.5), [0.5, 1.0]),
        (optimize.replace(), [1.0, 2.0]),
        (optimize.momentum(0.5, momentum=0.5), [0.5, 1.25]),
        (optimize.momentum(0.5, momentum=0.5, nesterov=True), [0.75, 1.625]),
        # m = .5, v = .125 + .5 = .625; then m = .75, v = .8125
        (
            optimize.adam(1, beta1=0.5, beta2=0.5, tau=0.5),
            [0.5 / (0.625**0.5 + 0.5), 0.5 / (0.625**0.5 + 0.5) + 0.75 / (0.8125**0.5 + 0.5)],
        ),
        # v = 2.25 - .5 = 1.75, then 1.25
        (
            optimize.yogi(1, beta1=0, beta2=0.5, tau=1.5),
            [1 / (1.75**0.5 + 1.5), 1 / (1.75**0.5 + 1.5) + 1 / (1.25**0.5 + 1.5)],
        ),
        # v = 1 + 1, then 3
        (optimize.adagrad(1, tau=1), [1 / (2**0.5 + 1), 1 / (2**0.5 + 1) + 1 / (3**0.5 + 1)]),
        (optimize.adagrad(1, tau=1, beta1=0.5), [0.5 / (2**0.5 + 1), 0.5 / (2**0.5 + 1) + 0.75 / (3**0.5 + 1)]),
    ],
    ids=repr,
)
def test_first_steps_by_hand(optimizer: ServerOptimizer, expected: list[float]) -> None:
    """From 0, along the update 1."""
    model, delta = Arrays({"w": np.zeros(1)}), Arrays({"w": np.ones(1)})
    state = optimizer.init(model)
    for value in expected:
        model, state = optimizer.step(model, delta, state)
        assert model["w"][0] == pytest.approx(value, rel=1e-12)


def test_yogi_moves_by_steps_and_holds_where_the_moment_is_met() -> None:
    optimizer = optimize.yogi(beta2=0.5, tau=1.5)
    model, state = Arrays({"w": np.zeros(1)}), optimizer.init(Arrays({"w": np.zeros(1)}))
    moments = []
    for delta in (1.0, 1.0, 0.5, 2.0, 2.0, 8.0**0.5 / 2):
        model, state = optimizer.step(model, Arrays({"w": np.array([delta])}), state)
        moments.append(float(state.rule.v["w"][0]))
    assert moments == pytest.approx([1.75, 1.25, 1.125, 3.125, 5.125, 4.125])
    met = optimize.yogi(tau=1)
    _, state = met.step(model, Arrays({"w": np.ones(1)}), met.init(model))
    assert state.rule.v["w"][0] == 1


def test_plain_adagrad_remembers_one_array() -> None:
    model = Arrays({"w": np.zeros(1)})
    assert optimize.adagrad().init(model).rule.m is None
    assert optimize.adagrad(beta1=0.5).init(model).rule.m is not None


def test_a_variance_stays_a_variance() -> None:
    """A running variance is a buffer: FedAdam would make it negative in seven rounds."""
    model = Arrays({"w": np.ones(2), "var": np.full(2, 0.05)}, roles=[entries("var", role="buffer")])
    adam = optimize.adam(0.1)
    state = adam.init(model)
    for _ in range(20):
        model, state = adam.step(model, Arrays({"w": np.zeros(2), "var": -0.01 * model["var"]}), state)
    assert (model["var"] > 0).all()
