"""The server's loop is one's own, and still survives a crash; and a question that trains nothing."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-subclassing-any, no-check-untyped-defs
from __future__ import annotations

import numpy as np
import pytest

import umbel

adam = umbel.optimize.adam()
client = umbel.ClientApp()
interrupt_at: dict[str, int] = {}


@client.data
def load(ctx):
    return ctx.rng.normal(loc=3.0, size=20)


@client.train
def train(model, ctx):
    if ctx.round == interrupt_at.get("train"):
        raise KeyboardInterrupt
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

    @server.evaluate()
    def look(model, ctx):
        if ctx.round == interrupt_at.get("look"):
            raise KeyboardInterrupt
        return umbel.Metrics({"centre": model["centre"]})

    return server


def test_a_loop_of_ones_own():
    result = umbel.run(make_server(), client, on=umbel.Simulation(clients=50), seed=1)
    assert len(result.history) == 20
    assert result.history["error"][-1] < result.history["error"][0] / 2
    assert result.history["cohort"].tolist() == [5] * 20


@pytest.mark.parametrize("where", ["train", "look"])
@pytest.mark.parametrize("every", [1, 5])
def test_it_goes_on_where_it_was_interrupted(where, every, tmp_path):
    """Ctrl-C in the middle of round 8: at a client, or when main has changed its state and the server looks at it."""
    options = {"on": umbel.Simulation(clients=50), "seed": 1, "callbacks": [umbel.Checkpoint(every=every)]}
    whole = umbel.run(make_server(), client, **options)
    interrupt_at[where] = 8
    try:
        with pytest.raises(KeyboardInterrupt) as raised:
            umbel.run(make_server(), client, **options, dir=tmp_path)
    finally:
        interrupt_at.clear()
    assert "7 rounds are committed" in raised.value.__notes__[0]
    again = umbel.run(make_server(), client, **options, dir=tmp_path)
    assert again.model == whole.model
    assert again.history == whole.history


def test_a_round_without_commit_is_told():
    server = umbel.ServerApp(model={"centre": np.zeros(())}, rounds=3)

    @server.main
    def main(fed):
        model = fed.initial
        for _ in fed.rounds():
            model = model + fed.train(model, cohort=umbel.sample.count(2), config={"lr": 0.1}).mean

    with pytest.raises(umbel.UmbelError, match=r"round 1 ended without fed\.commit"):
        umbel.run(server, client, on=umbel.Simulation(clients=5))


def test_what_a_callback_keeps_stays_what_it_was():
    """Main goes on with the same dictionary; what was committed does not change with it."""
    seen = []
    umbel.run(
        make_server(), client, on=umbel.Simulation(clients=50), seed=1, callbacks=[lambda r: seen.append(r.state)]
    )
    assert len({float(s["model"]["centre"]) for s in seen}) == 20
