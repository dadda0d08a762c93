"""Every server optimizer passes the suite of umbel.testing; broken ones do not."""

# ruff: noqa: ARG002  # hooks take what they are given
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import pytest

import umbel
from umbel import optimize
from umbel.arrays import Arrays
from umbel.testing import check_optimizer

OURS = [
    optimize.replace(),
    optimize.sgd(lr=0.5),
    optimize.momentum(),
    optimize.momentum(nesterov=True),
    optimize.adam(),
    optimize.yogi(),
    optimize.adagrad(),
]


@pytest.mark.parametrize("optimizer", OURS, ids=lambda x: type(x.rule).__name__)
def test_ours(optimizer: Any) -> None:
    check_optimizer(optimizer)


def test_on_a_model_of_ones_own() -> None:
    check_optimizer(optimize.adam(), model=Arrays({"w": np.ones((3, 2), np.float16)}))


@dataclass(frozen=True)
class Right:
    """Gradient descent with a memory; those below are wrong in one thing each."""

    elementwise: ClassVar[bool] = True
    lr: float = 0.5

    def init(self, model: Any) -> Any:
        return {"last": model.zeros(), "steps": 0}

    def step(self, model: Any, delta: Any, state: Any) -> Any:
        last = 0.5 * state["last"] + delta
        return model + self.lr * last, {"last": last, "steps": state["steps"] + 1}


def test_one_of_ones_own() -> None:
    check_optimizer(Right())


@dataclass(frozen=True)
class Normed(Right):
    """Says that it is elementwise, and looks at the whole update."""

    def step(self, model: Any, delta: Any, state: Any) -> Any:
        size = np.sqrt(np.sum(np.square(delta))) if isinstance(delta, np.ndarray) else delta.norm()
        return super().step(model, delta / (1.0 + float(size)), state)


@dataclass(frozen=True)
class Dividing(Right):
    """Makes NaN of an update of zeros."""

    def step(self, model: Any, delta: Any, state: Any) -> Any:
        return super().step(model, delta / (delta**2) ** 0.5, state)


@dataclass(frozen=True)
class Growing(Right):
    def step(self, model: Any, delta: Any, state: Any) -> Any:
        return super().step(model, delta * 1e30 * 1e30, state)


@dataclass(frozen=True)
class Moody(Right):
    drawn: ClassVar[np.random.Generator] = np.random.default_rng(1)

    def step(self, model: Any, delta: Any, state: Any) -> Any:
        return super().step(model, delta * float(self.drawn.random()), state)


@dataclass(frozen=True)
class Remembering(Right):
    """Remembers beside its state."""

    elementwise: ClassVar[bool] = False
    steps: ClassVar[list[int]] = []

    def step(self, model: Any, delta: Any, state: Any) -> Any:
        self.steps.append(1)
        return super().step(model, delta / len(self.steps), state)


@dataclass(frozen=True)
class InPlace(Right):
    """Changes the state that it is given."""

    elementwise: ClassVar[bool] = False

    def step(self, model: Any, delta: Any, state: Any) -> Any:
        state["steps"] += 1
        return model + self.lr * delta, state


@dataclass(frozen=True)
class Objects(Right):
    def init(self, model: Any) -> Any:
        return {"last": model.zeros(), "steps": 0, "helper": object()}

    elementwise: ClassVar[bool] = False


@dataclass(frozen=True)
class Reshaping(Right):
    elementwise: ClassVar[bool] = False

    def step(self, model: Any, delta: Any, state: Any) -> Any:
        return Arrays({name: np.ravel(model[name]) for name in model}), state


@dataclass(frozen=True)
class NoState(Right):
    elementwise: ClassVar[bool] = False

    def step(self, model: Any, delta: Any, state: Any) -> Any:
        return model + delta


class NoStep:
    def init(self, model: Any) -> Any:
        return None


@dataclass(frozen=True)
class Raising(Right):
    def step(self, model: Any, delta: Any, state: Any) -> Any:
        raise KeyError("momentum")


class NoValue(Right):
    """Has a setting that cannot be written down."""

    def __init__(self) -> None:
        object.__setattr__(self, "lr", cast(float, lambda: 0.5))


BROKEN: list[tuple[Any, str]] = [
    (Normed(), "slices of a model as the whole"),
    (Dividing(), "take an update of zeros"),
    (Growing(), "keep trained entries finite"),
    (Moody(), "same bits"),
    (Remembering(), "same bits"),
    (InPlace(), "leave the model, the update and its state as they are"),
    (Objects(), "have a state"),
    (Reshaping(), "step, even .* does not fit"),
    (NoState(), "step, even"),
    (NoStep(), r"have init\(model\) and step"),
    (Raising(), "step, even where NumPy's warnings are errors; it raised KeyError"),
    (NoValue(), "be a value"),
    (optimize.adam, "have init"),
]


@pytest.mark.parametrize(("rule", "says"), BROKEN, ids=lambda x: type(x).__name__)
def test_a_broken_one_is_refused(rule: Any, says: str) -> None:
    with pytest.raises(AssertionError, match=f"(?s)^a server optimizer must .*({says})"):
        check_optimizer(rule)


def test_the_engine_keeps_roles_whatever_a_rule_does() -> None:
    """Buffers, counters and frozen entries never reach a rule."""
    model = umbel.Arrays({"w": np.ones(2), "s": np.ones(2), "n": 3}, roles={"s": "buffer"})

    class Curious:
        def init(self, model: Any) -> Any:
            assert list(model) == ["w"]

        def step(self, model: Any, delta: Any, state: Any) -> Any:
            assert list(model) == list(delta) == ["w"]
            return model * 0.0, state

    optimizer = optimize.as_optimizer(Curious())
    delta = umbel.Arrays({"w": np.ones(2), "s": np.ones(2)}, roles={"s": "buffer"})
    moved, _ = optimizer.step(model, delta, optimizer.init(model))
    assert [moved["w"].tolist(), moved["s"].tolist(), int(moved["n"])] == [[0, 0], [2, 2], 3]
