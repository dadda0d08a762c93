# ruff: noqa: ARG002  # samplers take what they are given

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import umbel
from umbel.errors import HandlerMissing, UsageError


def federation() -> tuple[umbel.ServerApp, umbel.ClientApp]:
    client = umbel.ClientApp()

    @client.data
    def data(ctx: Any) -> Any:
        return ctx.rng.normal(size=3)

    @client.train
    def train(model: umbel.Arrays, ctx: Any) -> umbel.Update:
        change = ctx.data + ctx.rng.random(3) + np.random.random(3) * ctx.config["lr"]
        return umbel.Update(delta={"w": change}, metrics={"sum": change.sum()})

    @client.evaluate
    def evaluate(model: umbel.Arrays, ctx: Any) -> umbel.Metrics:
        return umbel.Metrics({"sum": model["w"].sum() + ctx.rng.random()})

    @client.query("mean")
    def mean(model: Any, ctx: Any) -> umbel.Update:
        return umbel.Update(value={"mean": ctx.data.mean()})

    strategy = umbel.fed_avg(cohort=Only("17"), config={"lr": 0.5}, evaluate=umbel.evaluation(cohort=Only("17")))
    return umbel.ServerApp(model={"w": np.zeros(3)}, strategy=strategy, rounds=4), client


class Only(umbel.sample.Sampler):
    def __init__(self, name: str) -> None:
        self.name = name

    def draw(self, population: umbel.sample.Population, *, round: int, rng: Any) -> tuple[str, ...]:
        return (self.name,)


def test_one_client_gives_what_the_run_gave() -> None:
    server, client = federation()
    sim = umbel.Simulation(20)
    models: list[umbel.Arrays] = []
    history = umbel.run(server, client, on=sim, seed=5, callbacks=[lambda r: models.append(r.model)]).history
    update = sim.client("17", seed=5).train(models[1], round=3, config={"lr": 0.5})
    assert update.metrics["sum"] == history["train.sum"][2] if "train.sum" in history.columns else True
    assert (models[1] + update.arrays) == models[2]
    metrics = sim.client(17, client, seed=5).evaluate({"w": models[1]["w"]}, round=2)
    assert np.isfinite(metrics.values["sum"])
    assert sim.client("17").query("mean").arrays["mean"] == sim.client("17").query("mean").arrays["mean"]
    assert repr(sim.client("17")) == "OneClient('17')"


def test_what_its_code_raises_is_let_through() -> None:
    client = umbel.ClientApp()

    @client.train
    def train(model: Any, ctx: Any) -> Any:
        raise LookupError("here")

    with pytest.raises(LookupError, match="here"):
        umbel.Simulation(3).client("1", client).train({"w": np.zeros(1)})


def test_what_cannot_be_asked() -> None:
    _, client = federation()
    with pytest.raises(UsageError, match="nothing has run here yet"):
        umbel.Simulation(3).client("1")
    with pytest.raises(UsageError, match="there is no client '7'"):
        umbel.Simulation(3).client(7, client)
    with pytest.raises(HandlerMissing, match="no handler for 'histogram'"):
        umbel.Simulation(3).client(1, client).query("histogram")
    for wrong in (0, -1, "3", 1.5):
        with pytest.raises(UsageError, match="round is"):
            umbel.Simulation(3).client(1, client).train({"w": np.zeros(1)}, round=wrong)  # type: ignore[arg-type]
