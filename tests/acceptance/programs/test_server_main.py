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


def test_a_committed_model_may_be_a_mapping_of_arrays(tmp_path):
    """It is the run's model as if it were `Arrays`: the result's, the file's, and what central evaluation sees."""
    client = umbel.ClientApp()
    client.train(lambda model, ctx: umbel.Update(model={"w": model["w"] + 1}))  # noqa: ARG005
    server = umbel.ServerApp(model={"w": np.zeros(2)}, rounds=2)

    @server.main
    def main(fed):
        w = fed.state["model"]["w"] if fed.state else np.zeros(2)
        for _ in fed.rounds():
            w = w + fed.train({"w": w}, cohort=umbel.sample.everyone()).mean["w"]
            fed.commit({"model": {"w": w}})

    @server.evaluate
    def test(model, ctx):
        return umbel.Metrics({"w": model["w"].sum()})

    federation = umbel.Simulation(clients=2)
    checkpoint = umbel.Checkpoint(best_on="w")
    result = umbel.run(server, client, on=federation, seed=1, dir=tmp_path / "run", callbacks=[checkpoint])
    assert result.model == result.best == umbel.Arrays({"w": [2.0, 2.0]})
    assert umbel.Arrays.load(tmp_path / "run" / "model.safetensors") == result.model
    assert result.history["w"].tolist() == [2, 4]
