"""Federated analytics: a histogram over all clients' data, which stays where it is."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-subclassing-any, no-check-untyped-defs
from __future__ import annotations

import numpy as np

import umbel

edges = np.linspace(-4, 4, 9)
client = umbel.ClientApp()


@client.data
def load(ctx):
    return ctx.rng.normal(size=100)


@client.query("histogram")
def histogram(model, ctx):
    return umbel.Update(value={"counts": np.histogram(ctx.data, bins=ctx.config["bins"])[0]})


server = umbel.ServerApp(rounds=1)


@server.main
def main(fed):
    for _ in fed.rounds():
        got = fed.query(
            "histogram",
            config={"bins": edges},
            cohort=umbel.sample.everyone(),
            aggregator=umbel.aggregate.sum(),
        )
        fed.commit({"counts": got.sum["counts"]})


def test_every_value_is_counted_once():
    result = umbel.run(server, client, on=umbel.Simulation(clients=30), seed=1)
    counts = result.state["counts"]
    assert counts.dtype == np.int64  # counted exactly
    assert counts.sum() == 30 * 100
    assert counts.argmax() in (3, 4)
    assert result.model is None
