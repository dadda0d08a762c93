"""Ten more rounds: the same program with a larger number goes on where it ended."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-subclassing-any, no-check-untyped-defs
from __future__ import annotations

import numpy as np
import pytest

import umbel

client = umbel.ClientApp()


@client.train
def train(model, ctx):
    ctx.state["trained"] = ctx.state.get("trained", 0) + 1
    return umbel.Update(
        delta={"w": ctx.rng.normal(size=4).astype(np.float32)}, metrics={"trained": ctx.state["trained"]}
    )


server = umbel.ServerApp(
    model={"w": np.zeros(4, np.float32)}, strategy=umbel.fed_avgm(cohort=umbel.sample.fraction(0.5)), rounds=10
)
federation = umbel.Simulation(clients=8)


def test_ten_and_ten_rounds_are_twenty(tmp_path):
    first = umbel.run(server, client, on=federation, seed=3, dir=tmp_path / "run")
    more = umbel.run(server, client, on=federation, seed=3, dir=tmp_path / "run", rounds=20)
    at_once = umbel.run(server, client, on=federation, seed=3, rounds=20)
    assert (len(first.history), len(more.history)) == (10, 20)
    assert more.model == at_once.model
    assert more.history == at_once.history  # the clients' counters too


def test_a_finished_run_is_given_as_it_is(tmp_path):
    first = umbel.run(server, client, on=federation, dir=tmp_path / "run")
    again = umbel.run(server, client, on=federation, dir=tmp_path / "run")  # the seed is the directory's
    assert again.model == first.model
    assert again.seed == first.seed
    assert again.history["trained"].max() == first.history["trained"].max()  # nobody trained again


def test_another_program_is_told_what_differs(tmp_path):
    umbel.run(server, client, on=federation, seed=3, dir=tmp_path / "run")
    changed = server.with_(strategy=umbel.fed_avgm(momentum=0.5))
    with pytest.raises(umbel.errors.RecipeChanged) as refused:
        umbel.run(changed, client, on=umbel.Simulation(clients=9), seed=3, dir=tmp_path / "run")
    told = "\n".join(refused.value.differences)
    assert "momentum: 0.9 before, 0.5 now" in told
    assert "count: 8 before, 9 now" in told
