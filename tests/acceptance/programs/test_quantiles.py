"""The median of all clients' values by repeated queries: halve the interval until it is narrow enough."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-subclassing-any, no-check-untyped-defs
from __future__ import annotations

import numpy as np

import umbel

waiting_days = np.random.default_rng(0).gamma(2.0, 30.0, size=999)
client = umbel.ClientApp()


@client.data
def load(ctx):
    return waiting_days[ctx.client.part]


@client.query("below")
def below(model, ctx):
    return umbel.Update(value={"below": (ctx.data <= ctx.config["at"]).sum(), "all": len(ctx.data)})


server = umbel.ServerApp()


@server.main
def median(fed):
    low, high = fed.state or (0.0, 1000.0)
    for _ in fed.rounds(30):
        middle = (low + high) / 2
        got = fed.query(
            "below", config={"at": middle}, cohort=umbel.sample.everyone(), aggregator=umbel.aggregate.sum()
        )
        low, high = (low, middle) if got.sum["below"] >= got.sum["all"] / 2 else (middle, high)
        fed.commit((low, high), metrics={"width": high - low})


def test_the_median_is_that_of_the_pooled_values():
    parts = umbel.partition.exponential(len(waiting_days), clients=12, seed=1)
    result = umbel.run(server, client, on=umbel.Simulation(clients=parts))
    low, high = result.state
    assert low < np.median(waiting_days) <= high
    assert result.history["width"][-1] < 1e-5
    assert len(result.history) == 30
