"""A second set of arrays both ways: control variates, the server's and each client's own (SCAFFOLD).

Source: Karimireddy et al., SCAFFOLD: Stochastic Controlled Averaging for Federated Learning, ICML 2020, Algorithm 1,
with option II for the clients' control variates. https://arxiv.org/abs/1910.06378
"""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-subclassing-any, no-check-untyped-defs
from __future__ import annotations

import numpy as np

import umbel

CLIENTS, STEPS, LR = 6, 10, 0.05
client = umbel.ClientApp()


@client.data
def load(ctx):
    """Linear regression; the clients disagree about the answer, and on how much each feature varies."""
    x = ctx.rng.normal(size=(40, 3)) * ctx.rng.uniform(0.5, 2, size=3)
    return x, x @ ctx.rng.normal(size=3)


def gradient(model, data):
    x, y = data
    return umbel.Arrays({"w": x.T @ (x @ model["w"] - y) / len(x)})


@client.train
def train(model, ctx):
    c = ctx.extra["c"]
    mine = ctx.state.get("c", c.zeros())
    w = model
    for _ in range(STEPS):
        w = w - LR * (gradient(w, ctx.data) - mine + c)
    ctx.state["c"] = mine - c + (model - w) / (STEPS * LR)
    return umbel.Update(model=w, extra={"change": ctx.state["c"] - mine})


@client.query("control")
def control(model, ctx):
    return umbel.Update(value=ctx.state.get("c", model.zeros()))


server = umbel.ServerApp(model={"w": np.zeros(3)}, rounds=60)


@server.main
def scaffold(fed):
    s = fed.state or {"model": fed.initial, "c": fed.initial.zeros()}
    for _ in fed.rounds():
        got = fed.train(
            s["model"],
            cohort=umbel.sample.count(3),
            extra={"c": s["c"]},
            aggregators={"change": umbel.aggregate.sum()},
        )
        s = {"model": s["model"] + got.mean, "c": s["c"] + got.extra["change"] / CLIENTS}
        s["of clients"] = fed.query("control", s["model"], cohort=umbel.sample.everyone()).mean
        fed.commit(s)


def optimum(seed):
    """Where the clients' mean gradient is zero: their data, put together."""
    kept = umbel.ServerApp(model={"w": np.zeros(3)})
    curvature, target = [], []

    def look(model, ctx):
        x, y = ctx.data
        curvature.append(x.T @ x / len(x))
        target.append(x.T @ y / len(x))
        return umbel.Metrics({})

    looking = umbel.ClientApp()
    looking.data(load)
    looking.evaluate(look)
    umbel.evaluate(kept.initial_model(), looking, on=umbel.Simulation(clients=CLIENTS), seed=seed)
    return np.linalg.solve(sum(curvature), sum(target))


def test_it_finds_the_common_optimum_and_fed_avg_does_not():
    federation = umbel.Simulation(clients=CLIENTS)
    result = umbel.run(server, client, on=federation, seed=1)
    s = result.state
    assert s["c"].difference(s["of clients"], atol=1e-12) == ""  # the server's is the mean of the clients'
    assert s["c"].norm() > 0
    right = optimum(seed=1)
    assert np.abs(result.model["w"] - right).max() < 0.01

    plain = umbel.ServerApp(model={"w": np.zeros(3)}, strategy=umbel.fed_avg(), rounds=60)
    uncorrected = umbel.ClientApp()
    uncorrected.data(load)

    @uncorrected.train
    def sgd(model, ctx):
        w = model
        for _ in range(STEPS):
            w = w - LR * gradient(w, ctx.data)
        return umbel.Update(model=w)

    drifted = umbel.run(plain, uncorrected, on=federation, seed=1).model
    assert np.abs(drifted["w"] - right).max() > 0.02
