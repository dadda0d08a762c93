"""Slices of the model: a small device trains the first hidden units only (HeteroFL).

Source: Diao et al., HeteroFL: Computation and Communication Efficient Federated Learning for Heterogeneous Clients,
ICLR 2021. https://arxiv.org/abs/2010.01264
"""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-subclassing-any, no-check-untyped-defs
from __future__ import annotations

import numpy as np

import umbel

HIDDEN = 16
client = umbel.ClientApp()


def initial():
    rng = np.random.default_rng(0)
    return {"inner": rng.normal(size=(4, HIDDEN)), "outer": rng.normal(size=(HIDDEN, 1)) / 4}


@client.data
def load(ctx):
    x = ctx.rng.normal(size=(50, 4))
    return x, np.sin(x[:, :1]) + x[:, 1:2]


@client.train
def train(model, ctx):
    units, (x, y) = ctx.site["units"], ctx.data
    inner, outer = model["inner"][:, :units].copy(), model["outer"][:units].copy()
    for _ in range(5):
        h = np.tanh(x @ inner)
        error = (h @ outer - y) / len(x)
        inner, outer = inner - 0.1 * x.T @ (error @ outer.T * (1 - h**2)), outer - 0.1 * h.T @ error
    return umbel.Update(model={"inner": inner, "outer": outer}, weight=len(x))


@client.evaluate
def evaluate(model, ctx):
    x, y = ctx.data
    return umbel.Metrics({"loss": np.mean((np.tanh(x @ model["inner"]) @ model["outer"] - y) ** 2)})


server = umbel.ServerApp(model=initial, strategy=umbel.fed_avg(aggregator=umbel.aggregate.mean(slices=True)), rounds=20)


def test_every_unit_is_averaged_over_those_who_have_it():
    devices = {f"phone{i}": {"units": 4} for i in range(6)} | {f"laptop{i}": {"units": 12} for i in range(2)}
    result = umbel.run(server, client, on=umbel.Simulation(clients=devices), seed=1)
    moved = np.abs(result.model["inner"] - initial()["inner"]).max(axis=0)
    assert (moved[:12] > 0).all()  # the laptops' units, though six of eight devices do not have them
    assert (moved[12:] == 0).all()  # nobody's
    assert result.history["loss"][-1] < 0.6 * result.history["loss"][0]


def test_who_lacks_a_unit_does_not_hold_it_back():
    """One round: units 4 to 11 move as if the laptops were alone."""
    devices = {"phone": {"units": 4}, "laptop": {"units": 12}}
    once = server.with_(rounds=1)
    both = umbel.run(once, client, on=umbel.Simulation(clients=devices), seed=1).model
    alone = umbel.run(once, client, on=umbel.Simulation(clients={"laptop": {"units": 12}}), seed=1).model
    assert np.array_equal(both["inner"][:, 4:], alone["inner"][:, 4:])
    assert not np.array_equal(both["inner"][:, :4], alone["inner"][:, :4])
