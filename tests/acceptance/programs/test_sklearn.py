"""A linear classifier of scikit-learn, where some clients have never seen some of the classes."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-subclassing-any, no-check-untyped-defs
from __future__ import annotations

import numpy as np
import pytest

import umbel

datasets = pytest.importorskip("sklearn.datasets")
linear_model = pytest.importorskip("sklearn.linear_model")

x, y = datasets.load_digits(return_X_y=True)
x = x / 16
client = umbel.ClientApp()


@client.train
def train(model, ctx):
    net = linear_model.SGDClassifier(loss="log_loss", random_state=int(ctx.rng.integers(2**31)))
    net.classes_ = np.arange(10)
    net.coef_, net.intercept_ = model["coef"].copy(), model["intercept"].copy()
    mine = ctx.client.part
    net.partial_fit(x[mine], y[mine], classes=np.arange(10))
    return umbel.Update(model={"coef": net.coef_, "intercept": net.intercept_}, weight=len(mine))


server = umbel.ServerApp(
    model={"coef": np.zeros((10, 64)), "intercept": np.zeros(10)}, strategy=umbel.fed_avg(), rounds=5
)


@server.evaluate()
def held_out(model, ctx):
    scores = x[1500:] @ model["coef"].T + model["intercept"]
    return umbel.Metrics({"accuracy": np.mean(scores.argmax(axis=1) == y[1500:])})


def test_every_class_is_learned_though_nobody_has_all():
    parts = umbel.partition.pathological(y[:1500], clients=10, classes=2, seed=1)
    assert all(len(set(y[part])) == 2 for part in parts)
    result = umbel.run(server, client, on=umbel.Simulation(clients=parts), seed=1)
    assert result.history["accuracy"][-1] > 0.6
