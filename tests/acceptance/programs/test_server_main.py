"""The server's loop is one's own, and still survives a crash; and a question that trains nothing."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-subclassing-any, no-check-untyped-defs
from __future__ import annotations

import numpy as np
import pytest

import umbel

adam = umbel.optimize.adam()
client = umbel.ClientApp()


@client.data
def load(ctx):
    return ctx.rng.normal(loc=3.0, size=20)


@client.train
def train(model, ctx):
    return umbel.Update(
        model={"centre": model["centre"] + ctx.config["lr"] * (ctx.data.mean() - model["centre"])},
        weight=len(ctx.data),
        metrics={"error": abs(ctx.data.mean() - model["centre"])},
    )


def make_server():
    server = umbel.ServerApp(model={"centre": np.zeros(())})

    @server.main
    def main(fed):
        s = fed.state or {"model": fed.initial, "opt": adam.init(fed.initial)}  # what the last commit held
        for r in fed.rounds(20):  # noqa: B007  # goes on after the last commit
            got = fed.train(
                s["model"],
                cohort=umbel.sample.fraction(0.1),
                aggregator=umbel.aggregate.mean(),
                config={"lr": 0.1},
            )
            s["model"], s["opt"] = adam.step(s["model"], got.mean, s["opt"])
            fed.commit(s, metrics=got.metrics)

    return server


def test_a_loop_of_ones_own():
    result = umbel.run(make_server(), client, on=umbel.Simulation(clients=50), seed=1)
    assert len(result.history) == 20
    assert result.history["error"][-1] < result.history["error"][0] / 2
    assert result.history["cohort"].tolist() == [5] * 20


def test_it_goes_on_where_it_was_killed(tmp_path):
    """Ctrl-C comes in the middle of round 7; the same call goes on, and ends with the same bits."""
    whole = umbel.run(make_server(), client, on=umbel.Simulation(clients=50), seed=1)
    trained = iter(range(6 * 5 + 3))

    def interrupt(model, ctx, call):
        if next(trained, None) is None:
            raise KeyboardInterrupt
        return call(model, ctx)

    interrupted = umbel.ClientApp()
    interrupted.data(load)
    interrupted.train(train)
    interrupted.use(interrupt)
    with pytest.raises(KeyboardInterrupt):
        umbel.run(make_server(), interrupted, on=umbel.Simulation(clients=50), seed=1, dir=tmp_path)
    again = umbel.run(make_server(), client, on=umbel.Simulation(clients=50), seed=1, dir=tmp_path)
    assert again.model == whole.model
    assert again.history == whole.history
