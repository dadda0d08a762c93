"""Weights: what an update counts in a mean. Zero is lawful."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-subclassing-any, no-check-untyped-defs
from __future__ import annotations

import numpy as np
import pytest

import umbel

client = umbel.ClientApp()


@client.train
def train(model, ctx):
    return umbel.Update(
        model={"w": np.array(ctx.site["value"])}, weight=ctx.site["examples"], metrics={"value": ctx.site["value"]}
    )


server = umbel.ServerApp(model={"w": np.array(7.0)}, strategy=umbel.fed_avg(), rounds=1)


def run(*clients, **options):
    sites = {f"c{i}": {"examples": n, "value": v} for i, (n, v) in enumerate(clients)}
    return umbel.run(server.with_(**options), client, on=umbel.Simulation(clients=sites))


def test_a_client_without_examples_takes_part_and_counts_nothing():
    result = run((3, 10.0), (1, 2.0), (0, -1000.0))
    assert result.model["w"] == 8.0
    assert result.history["folded"].tolist() == [3]
    assert result.history["value"][0] == 8.0


def test_when_nobody_has_examples_the_model_stays():
    assert run((0, 1.0), (0, 2.0)).model["w"] == 7.0


def test_uniform_weights():
    uniform = umbel.fed_avg(aggregator=umbel.aggregate.mean(uniform=True))
    assert run((3, 10.0), (1, 2.0), strategy=uniform).model["w"] == 6.0


@pytest.mark.parametrize("weight", [-1, float("nan"), "many"])
def test_a_weight_that_is_none_is_refused(weight):
    with pytest.raises(umbel.errors.QuorumMissed, match=r"weight is .*(?s:.*)the number of examples"):
        run((weight, 1.0))
