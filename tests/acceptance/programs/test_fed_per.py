"""FedPer: a shared body, and a head of one's own at each client; evaluated by each with its own head.

Source: Arivazhagan et al., Federated Learning with Personalization Layers, 2019. https://arxiv.org/abs/1912.00818
"""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-subclassing-any, no-check-untyped-defs
from __future__ import annotations

import numpy as np
import pytest

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


def test_a_model_has_no_personal_heads(caplog):
    """Evaluated by itself it says so: each client's head stayed in the run."""
    on = umbel.Simulation(clients=sites)
    result = umbel.run(server, client, on=on, seed=1)
    alone = umbel.evaluate(result.model, client, on=on, seed=1)
    assert {own["head"] for own in alone.clients.values()} == {0.1}
    assert "local-entries: head stayed at the clients of the run" in caplog.text


def test_heads_survive_in_the_directory(tmp_path):
    on = umbel.Simulation(clients=sites)
    whole = umbel.run(server, client, on=on, seed=1)
    umbel.run(server, client, on=on, seed=1, dir=tmp_path, rounds=5)
    resumed = umbel.run(server, client, on=on, seed=1, dir=tmp_path, rounds=15)
    assert resumed.history == whole.history


@pytest.mark.parametrize("kind", ["model", "delta"])
def test_an_update_may_be_the_change(kind):
    """What is not shared is kept either way."""
    changing = umbel.ClientApp()

    @changing.train
    def train(model, ctx):
        step = {"body": np.ones(4), "head": np.array(float(ctx.client.name))}
        if kind == "delta":
            return umbel.Update(delta=step)
        return umbel.Update(model={name: model[name] + step[name] for name in model})

    @changing.evaluate
    def evaluate(model, ctx):
        return umbel.Metrics({"head": model["head"]})

    result = umbel.run(server, changing, on=umbel.Simulation(clients=3))
    assert [r.metrics["head"] for r in result.clients.values()] == pytest.approx([0.1, 15.1, 30.1])
    assert result.model["head"] == 0.1


def test_what_would_be_forgotten_is_refused():
    forgetful = umbel.ClientApp()
    forgetful.train(lambda model, _: umbel.Update(model={"body": model["body"]}))
    with pytest.raises(umbel.errors.QuorumMissed, match="entry 'head' is missing; it is not shared"):
        umbel.run(server, forgetful, on=umbel.Simulation(clients=3))


def test_a_pattern_that_keeps_nothing_back_is_refused():
    misspelt = server.with_(strategy=umbel.fed_avg(share=umbel.entries("*", but="haed*")))
    with pytest.raises(umbel.UmbelError, match=r"but='haed\*' matches no entry(?s:.*)body, head"):
        umbel.run(misspelt, client, on=umbel.Simulation(clients=sites))
