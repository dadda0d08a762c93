"""FedProx in plain NumPy: the correction is two terms of one's own gradient.

Source: Li et al., Federated Optimization in Heterogeneous Networks, MLSys 2020. https://arxiv.org/abs/1812.06127
"""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-subclassing-any, no-check-untyped-defs
from __future__ import annotations

import numpy as np
import pytest

import umbel

client = umbel.ClientApp()


@client.data
def load(ctx):
    return np.array([10.0, -2.0]) * int(ctx.client.name)


@client.train
def train(model, ctx):
    w, pull = model["w"].copy(), ctx.correction.pull if ctx.correction else 0.0
    for _ in range(200):
        w -= 0.1 * (w - ctx.data + pull * (w - model["w"]))
    return umbel.Update(model={"w": w}, metrics={"moved": np.linalg.norm(w - model["w"])})


server = umbel.ServerApp(model={"w": np.zeros(2)}, strategy=umbel.fed_avg(), rounds=1)


@pytest.mark.parametrize("mu", [0.0, 0.5, 4.0])
def test_the_pull_holds_local_models_back(mu):
    """Each client minimises |w - a|^2 / 2 + mu |w - 0|^2 / 2, whose minimum is a / (1 + mu)."""
    pulled = umbel.run(server.with_(strategy=umbel.fed_prox(mu=mu)), client, on=umbel.Simulation(clients=3))
    free = umbel.run(server, client, on=umbel.Simulation(clients=3))
    assert pulled.model["w"] == pytest.approx(np.array([10.0, -2.0]) / (1 + mu))
    assert pulled.history["moved"][0] == pytest.approx(free.history["moved"][0] / (1 + mu))


def test_a_client_that_does_not_apply_it_is_refused():
    ignorant = umbel.ClientApp()
    ignorant.train(lambda model, _: umbel.Update(model=model))
    with pytest.raises(umbel.errors.QuorumMissed, match=r"did not apply it(?s:.*)ctx\.correction"):
        umbel.run(server.with_(strategy=umbel.fed_prox(mu=0.1)), ignorant, on=umbel.Simulation(clients=3))
