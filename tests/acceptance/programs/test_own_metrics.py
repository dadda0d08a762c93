"""Metrics of one's own: a summed confusion matrix, the worst clients, and a function."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-subclassing-any, no-check-untyped-defs
from __future__ import annotations

import numpy as np
import pytest

import umbel

client = umbel.ClientApp()


@client.data
def load(ctx):
    truth = ctx.rng.integers(3, size=20 + int(ctx.client.name))
    noisy = ctx.rng.random(len(truth)) < int(ctx.client.name) / 40
    return truth, np.where(noisy, (truth + 1) % 3, truth)


@client.train
def train(model, ctx):
    return umbel.Update(model=model, metrics={"seconds": float(ctx.client.name)})


@client.evaluate
def evaluate(model, ctx):
    truth, predicted = ctx.data
    confusion = np.zeros((3, 3))
    np.add.at(confusion, (truth, predicted), 1)
    return umbel.Metrics({"confusion": confusion, "accuracy": np.mean(truth == predicted)}, weight=len(truth))


strategy = umbel.fed_avg(
    metrics={
        "confusion": umbel.metrics.sum(),
        "accuracy": (umbel.metrics.mean(), umbel.metrics.worst(0.1), umbel.metrics.quantiles(0.1, 0.9)),
        "seconds": lambda values, weights: values[weights > 0].max(),
    }
)
server = umbel.ServerApp(model={"w": 0.0}, strategy=strategy, rounds=3)


def test_matrix_tail_and_function(tmp_path):
    result = umbel.run(server, client, on=umbel.Simulation(clients=20), seed=1)
    last = result.history[-1]
    confusion = last["confusion"]
    assert confusion.sum() == sum(20 + i for i in range(20))
    assert np.trace(confusion) / confusion.sum() == pytest.approx(last["accuracy"])
    worst_two = sorted(record.metrics["accuracy"] for record in result.clients.values())[:2]
    assert last["accuracy.worst10"] == np.mean(worst_two)
    assert last["accuracy.q10"] < last["accuracy"] < last["accuracy.q90"]
    assert last["seconds"] == 19.0

    assert result.history["confusion"][-1].shape == (3, 3)
    assert result.history.dataframe()["accuracy.worst10"].notna().all()
    assert len(result.plot().axes) == 5  # each number has a panel; the matrix has none
    result.history.save(tmp_path / "history.csv")
    assert "accuracy.worst10" in (tmp_path / "history.csv").read_text()


def test_a_rule_for_a_misspelt_metric_is_told(caplog):
    misspelt = server.with_(strategy=umbel.fed_avg(metrics={"acuracy": umbel.metrics.worst(0.1)}))
    umbel.run(misspelt, client, on=umbel.Simulation(clients=3))
    assert "no round has a metric 'acuracy'; there are round" in caplog.text
