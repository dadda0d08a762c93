"""The server has a test set of its own, and looks at the new model every five rounds."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-subclassing-any, no-check-untyped-defs
from __future__ import annotations

import numpy as np

import umbel

client = umbel.ClientApp()


@client.train
def train(model, ctx):
    return umbel.Update(delta={"w": np.ones(2)}, metrics={"loss": 1.0})


def make_server(**options):
    server = umbel.ServerApp(model={"w": np.zeros(2)}, strategy=umbel.fed_avg(**options), rounds=12)
    seen = []

    @server.evaluate(every=5)
    def test(model, ctx):
        seen.append(ctx.round)
        return umbel.Metrics({"test": model["w"].sum(), "loss": 7.0})

    return server, seen


def test_the_freshly_aggregated_model_every_five_rounds():
    server, seen = make_server()
    result = umbel.run(server, client, on=umbel.Simulation(clients=3))
    assert seen == [5, 10]
    assert np.flatnonzero(~np.isnan(result.history["test"])).tolist() == [4, 9]
    assert [result.history[i]["test"] for i in (4, 9)] == [10.0, 20.0]
    assert result.history["loss"][4] == 1.0  # of training; the server's has its stage in front
    assert result.history["central.loss"][4] == 7.0


def test_a_failing_test_is_reported_and_the_run_goes_on():
    server, _ = make_server()

    @server.evaluate(every=6)
    def broken(model, ctx):
        raise OSError("the test set is gone")

    result = umbel.run(server, client, on=umbel.Simulation(clients=3))
    assert result.status == "finished"
    assert [(f.client, f.round) for f in result.failures] == [("server", 6), ("server", 12)]
    assert "the test set is gone" in result.failures[0].message
    assert result.history[4]["test"] == 10.0
