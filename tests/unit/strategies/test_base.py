from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import umbel
from umbel.errors import ChainError, UsageError
from umbel.strategies import Strategy
from umbel.testing.promise import read_back

FACTORIES: dict[str, Callable[..., Strategy]] = {
    "fed_avg": umbel.fed_avg,
    "fed_avgm": umbel.fed_avgm,
    "fed_adam": umbel.fed_adam,
    "fed_yogi": umbel.fed_yogi,
    "fed_adagrad": umbel.fed_adagrad,
    "fed_prox": lambda **more: umbel.fed_prox(mu=0.1, **more),
    "q_fed_avg": lambda **more: umbel.q_fed_avg(q=1.0, lr=0.1, **more),
}


@pytest.mark.parametrize("name", FACTORIES)
def test_every_factory_takes_the_common_arguments(name: str) -> None:
    made = FACTORIES[name](
        cohort=umbel.sample.count(2),
        config={"lr": umbel.schedule.cosine(0.1, rounds=5), "layers": [1, 2]},
        rounds=umbel.rounds(quorum=0.5),
        evaluate=umbel.evaluation(every=3),
        metrics={"loss": umbel.metrics.quantiles(0.5)},
        share=umbel.entries("*", but="head*"),
    )
    assert made.name == name
    assert (made.cohort, made.rounds.quorum, made.evaluate.every) == (umbel.sample.count(2), 0.5, 3)
    assert made.share is not None
    assert made.share.but == ("head*",)
    assert made.config["layers"] == [1, 2]


@pytest.mark.parametrize("name", FACTORIES)
def test_a_strategy_is_a_value(name: str) -> None:
    made = FACTORIES[name](config={"lr": 0.1})
    assert made == FACTORIES[name](config={"lr": 0.1})
    assert made != FACTORIES[name](config={"lr": 0.2})
    assert hash(made) == hash(FACTORIES[name](config={"lr": 0.1}))
    assert read_back(made) == made
    with pytest.raises(AttributeError):
        made.name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        made.config["lr"] = 3  # type: ignore[index]


def test_changed_copies() -> None:
    made = umbel.fed_avg()
    other = made.with_(umbel.transforms.clip(1.0), cohort=umbel.sample.count(3))
    assert (len(made.transforms.steps), len(other.transforms.steps)) == (0, 1)
    assert other.with_(umbel.transforms.clip(2.0)).transforms.steps == (
        umbel.transforms.clip(1.0),
        umbel.transforms.clip(2.0),
    )
    assert made.with_() == made
    assert made.with_(transforms=[umbel.transforms.clip(1.0)]).transforms == other.transforms


def test_what_is_given_may_change_afterwards_without_effect() -> None:
    config: dict[str, Any] = {"lr": 0.1}
    metrics: dict[str, Any] = {"loss": umbel.metrics.mean()}
    made = umbel.fed_avg(config=config, metrics=metrics)
    config["lr"], metrics["loss"] = 9, None
    assert made == umbel.fed_avg(config={"lr": 0.1}, metrics={"loss": umbel.metrics.mean()})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"cohort": 0.5}, "cohort is a float"),
        ({"cohort": None}, "cohort is a NoneType"),
        ({"aggregator": "mean"}, "aggregator is a str"),
        ({"optimizer": 3}, "3 is no server optimizer"),
        ({"rounds": 10}, r"rounds is a int \(10\)(?s:.*)ServerApp\(rounds=\)"),
        ({"evaluate": True}, "evaluate is a bool"),
        ({"metrics": ["loss"]}, "metrics is a list"),
        ({"metrics": {"loss": "mean"}}, "'mean' does not say"),
        ({"share": ["w"]}, "share is a list"),
        ({"local": 0.1}, "local is a float"),
        ({"config": 3}, "config is a int"),
        ({"config": {"f": print}}, "config"),
        ({"transforms": umbel.transforms.clip(1.0)}, "transforms is a Clip"),
        ({"transforms": [3]}, "3 is no transform"),
        ({"rate": 3}, "a strategy has no 'rate'"),
    ],
)
def test_what_makes_no_sense(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        umbel.fed_avg().with_(**changes)


def test_transforms_and_aggregator_are_checked_together() -> None:
    class Shaking(umbel.transforms.Transform):
        needs = frozenset({"uniform"})

    with pytest.raises(ChainError, match="Shaking needs uniform updates"):
        umbel.fed_avg().with_(Shaking())
    made = umbel.fed_avg(aggregator=umbel.aggregate.mean(uniform=True)).with_(Shaking())
    with pytest.raises(ChainError, match="Shaking needs uniform updates"):
        made.with_(aggregator=umbel.aggregate.mean())


@pytest.mark.parametrize("make", [lambda: umbel.fed_prox(mu=float("nan")), lambda: umbel.fed_prox(mu=-1.0)])
def test_a_proximal_term_has_a_strength(make: Callable[[], Strategy]) -> None:
    with pytest.raises(UsageError, match="mu is"):
        make()


def test_a_factory_passes_its_arguments_on() -> None:
    assert umbel.fed_avgm(lr=0.5, momentum=0.3, nesterov=True).optimizer == umbel.optimize.momentum(
        lr=0.5, momentum=0.3, nesterov=True
    )
    assert umbel.q_fed_avg(q=2, lr=0.5, loss="nll").aggregator == umbel.aggregate.q_fair(q=2, lr=0.5, loss="nll")


def test_numpys_numbers_are_numbers() -> None:
    made: list[Strategy] = []
    kinds: list[tuple[Any, Any]] = [(float, int), (np.float32, np.int64)]
    for real, whole in kinds:
        policy = umbel.rounds(quorum=real(0.5), min_nodes=whole(2), wait=real(3))
        prox = umbel.fed_prox(mu=real(0.5), rounds=policy, evaluate=umbel.evaluation(every=whole(2)))
        made.append(
            prox.with_(umbel.transforms.clip(real(0.5)), aggregator=umbel.aggregate.q_fair(q=real(1), lr=whole(1)))
        )
    assert made[0] == made[1]


def test_an_unknown_argument_is_pythons_own_error() -> None:
    with pytest.raises(TypeError, match="bogus"):
        umbel.fed_adam(bogus=3)


def test_share_that_matches_nothing_is_refused_before_anything_is_sent() -> None:
    client = umbel.ClientApp()
    client.train(lambda model, ctx: 1 / 0)  # noqa: ARG005
    for share, says in (
        (umbel.entries("conv*"), "matches no entry of the model"),
        (umbel.entries("*", but="hed*"), r"but='hed\*' matches no entry"),
    ):
        server = umbel.ServerApp({"w": np.zeros(2), "head": np.zeros(1)}, umbel.fed_avg(share=share), 1)
        with pytest.raises(UsageError, match=says):
            umbel.run(server, client, on=umbel.Simulation(clients=2), seed=0)
