"""Who takes part: by chance, in turn, or by label."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-subclassing-any, no-check-untyped-defs
from __future__ import annotations

import numpy as np
import pytest

import umbel

client = umbel.ClientApp()


@client.train
def train(model, ctx):
    return umbel.Update(delta={"w": np.ones(1)}, metrics={"loss": 1.0})


@client.evaluate
def evaluate(model, ctx):
    return umbel.Metrics({"accuracy": 0.5})


def run(cohort, *, clients=10, rounds=12, labels=None, **options):
    server = umbel.ServerApp(model={"w": np.zeros(1)}, strategy=umbel.fed_avg(cohort=cohort, **options), rounds=rounds)
    return umbel.run(server, client, on=umbel.Simulation(clients=clients, labels=labels), seed=1)


def test_poisson_with_rounds_in_which_nobody_is_drawn():
    result = run(umbel.sample.poisson(0.1), rounds=20)
    empty = result.history["cohort"] == 0
    assert 0 < empty.sum() < 20
    assert result.model["w"][0] == (~empty).sum()  # an empty round leaves the model as it is
    assert np.isnan(result.history["loss"][empty]).all()
    assert result.failures == ()
    result.plot()


def test_each_in_turn():
    result = run(umbel.sample.cyclic(3), clients=9, rounds=6)
    assert {name: record.counted for name, record in result.clients.items()} == {str(i): 2 for i in range(9)}


def test_those_with_a_label():
    labels = {str(i): {"region": "eu" if i < 4 else "us"} for i in range(10)}
    result = run(umbel.sample.count(2).where(region="eu"), labels=labels)
    assert {n for n, r in result.clients.items() if r.counted} == {"0", "1", "2", "3"}
    with pytest.raises(umbel.errors.EmptyPopulation, match=r"(?s)none of 10 clients has region='asia'.*'eu', 'us'"):
        run(umbel.sample.count(2).where(region="asia"), labels=labels)


def test_others_evaluate_than_train():
    result = run(umbel.sample.cyclic(1), rounds=4, evaluate=umbel.evaluation(every=2, cohort=umbel.sample.everyone()))
    assert np.isnan(result.history["accuracy"]).tolist() == [True, False, True, False]
    assert all(r.metrics == {"accuracy": 0.5} for r in result.clients.values())
    assert len(result.clients) == 10
