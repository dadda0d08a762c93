"""A sweep: strategies and learning rates on the same clients, whose data is loaded once."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-subclassing-any, no-check-untyped-defs
from __future__ import annotations

import numpy as np

import umbel

loaded: list[str] = []
client = umbel.ClientApp()


@client.data
def load(ctx):
    loaded.append(ctx.client.name)
    x = ctx.rng.normal(size=(20, 3))
    return x, x @ np.array([1.0, 2.0, 3.0])


@client.train
def train(model, ctx):
    x, y = ctx.data
    w = model["w"] - ctx.config["lr"] * x.T @ (x @ model["w"] - y) / len(x)
    return umbel.Update(model={"w": w}, weight=len(x), metrics={"loss": np.mean((x @ w - y) ** 2)})


server = umbel.ServerApp(model={"w": np.zeros(3)}, rounds=8)


def test_strategies_and_learning_rates():
    loaded.clear()
    strategies = [umbel.fed_avg(), umbel.fed_avgm(momentum=0.5), umbel.fed_adam(lr=0.5)]
    results = {}
    with umbel.Simulation(clients=6) as simulation:
        for strategy in strategies:
            for lr in (0.01, 0.1):
                trial = server.with_(strategy=strategy.with_(config={"lr": lr}))
                result = umbel.run(trial, client, on=simulation, seed=1)
                results[strategy.name, lr] = result.history["loss"][-1]
    assert len(set(results.values())) == 6
    assert all(results[s.name, 0.1] < results[s.name, 0.01] for s in strategies[:2])
    assert sorted(loaded) == sorted(simulation.clients.population.names)  # each once, in six runs


def test_a_changed_copy_leaves_the_strategy_as_it_was():
    base = umbel.fed_avg(config={"lr": 0.1})
    changed = base.with_(umbel.transforms.clip(1.0), config={"lr": 0.2})
    assert base == umbel.fed_avg(config={"lr": 0.1})
    assert changed.config["lr"] == 0.2
    assert changed != base
