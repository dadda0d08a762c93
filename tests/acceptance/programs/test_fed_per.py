"""FedPer: a shared body, and a head of one's own at each client; evaluated by each with its own head.

Source: Arivazhagan et al., Federated Learning with Personalization Layers, 2019. https://arxiv.org/abs/1912.00818
"""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-subclassing-any, no-check-untyped-defs
from __future__ import annotations

import numpy as np

import umbel

client = umbel.ClientApp()


@client.data
def load(ctx):
    """One hidden feature that all share; what it means differs from client to client."""
    x = ctx.rng.normal(size=(60, 4))
    return x, x.sum(axis=1) * ctx.site["meaning"]


@client.train
def train(model, ctx):
    (x, y), body, head = ctx.data, model["body"].copy(), model["head"].copy()
    for _ in range(20):
        error = (x @ body * head - y) / len(x)
        body, head = body - 0.05 * x.T @ error * head, head - 0.05 * (x @ body) @ error
    return umbel.Update(model={"body": body, "head": head}, weight=len(x))


@client.evaluate
def evaluate(model, ctx):
    x, y = ctx.data
    return umbel.Metrics({"error": np.mean((x @ model["body"] * model["head"] - y) ** 2), "head": model["head"]})


server = umbel.ServerApp(
    model={"body": np.full(4, 0.5), "head": np.array(0.1)},
    strategy=umbel.fed_avg(share=umbel.entries("*", but="head*")),
    rounds=15,
)
sites = {f"site{i}": {"meaning": meaning} for i, meaning in enumerate((1.0, 2.0, -1.0, -2.0))}


def test_each_keeps_its_own_head():
    result = umbel.run(server, client, on=umbel.Simulation(clients=sites), seed=1)
    heads = {name: record.metrics["head"] for name, record in result.clients.items()}
    assert len(set(heads.values())) == 4
    assert heads["site0"] * heads["site2"] < 0  # opposite meanings
    assert result.model["head"] == 0.1  # the server's stayed what it was
    assert result.history["error"][-1] < 0.1

    shared = server.with_(strategy=umbel.fed_avg())
    together = umbel.run(shared, client, on=umbel.Simulation(clients=sites), seed=1)
    assert together.history["error"][-1] > 10 * result.history["error"][-1]  # one head cannot mean both


def test_heads_survive_in_the_directory(tmp_path):
    on = umbel.Simulation(clients=sites)
    whole = umbel.run(server, client, on=on, seed=1)
    umbel.run(server, client, on=on, seed=1, dir=tmp_path, rounds=5)
    resumed = umbel.run(server, client, on=on, seed=1, dir=tmp_path, rounds=15)
    assert resumed.history == whole.history
