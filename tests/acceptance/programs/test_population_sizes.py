"""One client, and a thousand tiny ones."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-subclassing-any, no-check-untyped-defs
from __future__ import annotations

import numpy as np
import pytest

import umbel

client = umbel.ClientApp()


@client.data
def load(ctx):
    return ctx.rng.normal(loc=5.0, size=3)


@client.train
def train(model, ctx):
    return umbel.Update(model={"mean": np.array(ctx.data.mean())}, weight=len(ctx.data))


@client.evaluate
def evaluate(model, ctx):
    return umbel.Metrics({"error": (ctx.data - model["mean"]).mean() ** 2}, weight=len(ctx.data))


server = umbel.ServerApp(model={"mean": np.zeros(())}, strategy=umbel.fed_avg(), rounds=3)


def test_one_client_is_a_federation():
    """What it trained is the model, to the bit of a float64 sum."""
    result = umbel.run(server, client, on=umbel.Simulation(clients=1), seed=1)
    assert result.history["error"].tolist() == [pytest.approx(0, abs=1e-25)] * 3
    assert result.history["folded"].tolist() == [1, 1, 1]


def test_a_thousand_tiny_clients_all_at_once():
    result = umbel.run(server, client, on=umbel.Simulation(clients=1000), seed=1)
    assert result.history["folded"].tolist() == [1000] * 3
    assert result.model["mean"] == pytest.approx(5.0, abs=0.1)
    assert {record.counted for record in result.clients.values()} == {3}


def test_a_tenth_of_ten_thousand():
    some = server.with_(strategy=umbel.fed_avg(cohort=umbel.sample.fraction(0.01)), rounds=5)
    result = umbel.run(some, client, on=umbel.Simulation(clients=10_000), seed=1)
    assert result.history["folded"].tolist() == [100] * 5
    assert len([r for r in result.clients.values() if r.counted]) > 400


def test_nobody_is_there():
    with pytest.raises(umbel.errors.EmptyPopulation, match="no client to ask"):
        umbel.run(server, client, on=umbel.Simulation(clients=0))
