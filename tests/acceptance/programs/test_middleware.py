"""What wraps every handler: times, defaults, checks."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-subclassing-any, no-check-untyped-defs
from __future__ import annotations

import time

import numpy as np

import umbel

client = umbel.ClientApp()
order: list[str] = []


@client.use
def timed(model, ctx, call):
    order.append("timed")
    began = time.perf_counter()
    answer = call(model, ctx)
    if isinstance(answer, umbel.Update):
        answer = answer.replace(metrics={**answer.metrics, "seconds": time.perf_counter() - began})
    return answer


@client.use
def clamped(model, ctx, call):
    order.append("clamped")
    answer = call(model, ctx)
    return answer.replace(weight=min(answer.weight, 100)) if isinstance(answer, umbel.Update) else answer


@client.use
def defaults(model, ctx, call):
    ctx.config = {"value": float(ctx.client.name), **ctx.config}
    return call(model, ctx)


@client.train
def train(model, ctx):
    return umbel.Update(model={"w": np.full(2, ctx.config["value"])}, weight=1000 if ctx.client.name == "1" else 100)


@client.evaluate
def evaluate(model, ctx):
    return umbel.Metrics({"w": model["w"][0]})


server = umbel.ServerApp(model={"w": np.zeros(2)}, strategy=umbel.fed_avg(), rounds=1)


def test_middleware_runs_around_each_handler_the_first_outermost():
    order.clear()
    result = umbel.run(server, client, on=umbel.Simulation(clients=2))
    assert order == ["timed", "clamped"] * 4  # two clients train and evaluate
    assert result.model["w"].tolist() == [0.5, 0.5]  # no weight above 100
    set_by_server = server.with_(strategy=umbel.fed_avg(config={"value": 3.0}))
    assert umbel.run(set_by_server, client, on=umbel.Simulation(clients=2)).model["w"].tolist() == [3.0, 3.0]
    assert 0 < result.history["seconds"][0] < 60
