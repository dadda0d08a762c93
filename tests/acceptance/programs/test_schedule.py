"""A learning rate that follows a schedule: resolved at the server, a number at the clients."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-subclassing-any, no-check-untyped-defs
from __future__ import annotations

import math

import pytest

import umbel

client = umbel.ClientApp()


@client.train
def train(model, ctx):
    assert type(ctx.config["lr"]) is float
    return umbel.Update(model={"w": model["w"] - ctx.config["lr"]}, metrics={"lr": ctx.config["lr"]})


def test_each_round_has_its_learning_rate():
    warm = umbel.schedule.warmup(2, then=umbel.schedule.cosine(0.1, rounds=8))
    strategy = umbel.fed_avg(config={"lr": warm, "epochs": 1})
    server = umbel.ServerApp(model={"w": 1.0}, strategy=strategy, rounds=10)
    result = umbel.run(server, client, on=umbel.Simulation(clients=3))
    cosine = [0.05 * (1 + math.cos(math.pi * r / 8)) for r in range(8)]
    assert result.history["lr"][2:].tolist() == pytest.approx(cosine)
    assert result.history["lr"][0] < result.history["lr"][1] < 0.1
    assert float(result.model["w"]) == pytest.approx(1 - sum(result.history["lr"]), rel=1e-6)
