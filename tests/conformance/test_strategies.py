"""Every strategy passes the suite of umbel.testing; broken ones do not."""

# ruff: noqa: ARG002  # hooks take what they are given
from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest

import umbel
from umbel import optimize
from umbel.aggregate import Summing
from umbel.aggregate.weighted_sum import WeightedSum, divided
from umbel.arrays import Arrays
from umbel.correction import Correction, LocalRule, LocalTask
from umbel.sample import Population, Sampler
from umbel.strategies import Strategy
from umbel.testing import check_strategy
from umbel.update import Update

OURS: Mapping[str, Strategy] = {
    "fed_avg": umbel.fed_avg(),
    "half of the clients": umbel.fed_avg(cohort=umbel.sample.fraction(0.5)),
    "clipped": umbel.fed_avg().with_(umbel.transforms.clip(0.1)),
    "uniform": umbel.fed_avg(aggregator=umbel.aggregate.mean(uniform=True)),
    "slices": umbel.fed_avg(aggregator=umbel.aggregate.mean(slices=True)),
    "with a schedule": umbel.fed_avg(config={"lr": umbel.schedule.cosine(0.1, rounds=3)}),
    "fed_avgm": umbel.fed_avgm(),
    "fed_prox": umbel.fed_prox(mu=0.1),
    "fed_adam": umbel.fed_adam(),
    "fed_yogi": umbel.fed_yogi(),
    "fed_adagrad": umbel.fed_adagrad(),
    "q_fed_avg": umbel.q_fed_avg(q=1.0, lr=0.1),
    "with quantiles": umbel.fed_avg(metrics={"loss": umbel.metrics.quantiles(0.1, 0.9)}),
}


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "umbel")


@pytest.mark.parametrize("name", OURS)
def test_ours(name: str) -> None:
    check_strategy(OURS[name])


def test_with_a_model_and_clients_of_ones_own() -> None:
    client = umbel.ClientApp()

    @client.train
    def train(model: Any, ctx: Any) -> Update:
        return Update(model={"w": model["w"] + 1})

    check_strategy(umbel.fed_avg(), model=Arrays({"w": np.ones(3)}), client=client)


@dataclass(frozen=True)
class Exploding:
    elementwise: ClassVar[bool] = True

    def init(self, model: Any) -> Any:
        return None

    def step(self, model: Any, delta: Any, state: Any) -> Any:
        return model / (delta - delta), state


@dataclass(frozen=True)
class Moody:
    drawn: ClassVar[np.random.Generator] = np.random.default_rng(1)

    def init(self, model: Any) -> Any:
        return None

    def step(self, model: Any, delta: Any, state: Any) -> Any:
        return model + delta * float(self.drawn.random()), state


@dataclass(frozen=True)
class Counting:
    """Its state cannot be kept between two pieces of a run."""

    def init(self, model: Any) -> Any:
        return {"steps": iter(range(9))}

    def step(self, model: Any, delta: Any, state: Any) -> Any:
        return model + delta * next(state["steps"]), state


@dataclass
class Steps:
    """What is no argument of its making is not written down."""

    number: int = field(default=0, init=False)


@dataclass(frozen=True)
class Forgetful:
    """Its state is another when it was read back."""

    def init(self, model: Any) -> Any:
        return Steps()

    def step(self, model: Any, delta: Any, state: Any) -> Any:
        after = Steps()
        after.number = state.number + 1
        return model + delta / after.number, after


@dataclass(frozen=True)
class Wandering(Summing):
    """Moves the model though nobody trained it."""

    def weight(self, stated: float) -> float:
        return 1.0

    def finish(self, acc: WeightedSum) -> Arrays | None:
        assert acc.total is not None
        return divided(acc.total, max(1.0, acc.weight)) + 1.0


@dataclass(frozen=True)
class Hasty(Sampler):
    """Draws by what it remembers."""

    rounds: ClassVar[list[int]] = []

    def draw(self, population: Population, *, round: int, rng: np.random.Generator) -> tuple[str, ...]:
        self.rounds.append(round)
        return population.names[len(self.rounds) % 5 :][:1]


@dataclass(frozen=True)
class Pull(LocalRule):
    """Raises where there is a correction to be made."""

    def correction(self, task: LocalTask) -> Correction:
        raise LookupError("no variate")


BROKEN: list[tuple[Any, str]] = [
    (umbel.fed_avg(optimizer=Exploding()), "keep the model finite|run; it raised"),
    (umbel.fed_avg(optimizer=Moody()), "same bits for the same seed"),
    (umbel.fed_avg(optimizer=Counting()), "run"),
    (umbel.fed_avg(optimizer=Forgetful()), "same bits in two pieces as in one"),
    (umbel.fed_avg(aggregator=Wandering()), "leave the model alone when nobody trained it"),
    (umbel.fed_avg(cohort=Hasty()), "same bits for the same seed"),
    (umbel.fed_avg().with_(local=Pull()), "run; it raised QuorumMissed.*no variate"),
    (umbel.fed_avg(optimizer=optimize.as_optimizer(type("Local", (Moody,), {})())), "be a value"),
    (umbel.fed_avg, "be an umbel.Strategy"),
]


@pytest.mark.parametrize(("strategy", "says"), BROKEN, ids=[says for _, says in BROKEN])
def test_a_broken_one_is_refused(strategy: Any, says: str) -> None:
    with pytest.raises(AssertionError, match=f"(?s)^a strategy must .*({says})"):
        check_strategy(strategy)
