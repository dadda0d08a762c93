"""Two apps in one process, and apps whose handlers are methods."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-subclassing-any, no-check-untyped-defs
from __future__ import annotations

import numpy as np

import umbel


class Hospital:
    """Handlers as methods: what they need is in `self`."""

    def __init__(self, step):
        self.step = step
        self.app = umbel.ClientApp()
        self.app.data(self.load)
        self.app.train(self.train)
        self.app.query("size")(self.size)

    def load(self, ctx):
        return ctx.rng.normal(size=10 + int(ctx.client.name))

    def train(self, model, ctx):
        return umbel.Update(model={"w": model["w"] + self.step}, weight=len(ctx.data))

    def size(self, model, ctx):  # noqa: ARG002
        return umbel.Update(value={"n": len(ctx.data)})


def test_two_apps_do_not_mix():
    server = umbel.ServerApp(model={"w": np.zeros(1)}, strategy=umbel.fed_avg(), rounds=2)
    with umbel.Simulation(clients=3) as federation:
        one = umbel.run(server, Hospital(1.0).app, on=federation)
        ten = umbel.run(server, Hospital(10.0).app, on=federation)
    assert (one.model["w"][0], ten.model["w"][0]) == (2.0, 20.0)


def test_one_servers_loop_asks_the_other_app():
    """A run inside a run: what a central evaluation of a hierarchical federation would do."""
    inner = umbel.ServerApp(model={"w": np.zeros(1)}, strategy=umbel.fed_avg(), rounds=1)
    outer = umbel.ClientApp()

    @outer.train
    def region(model, ctx):
        result = umbel.run(inner, Hospital(1.0).app, on=umbel.Simulation(clients=2), initial=model, seed=ctx.round)
        return umbel.Update(model=result.model, metrics={"drawn": ctx.rng.random()})

    server = umbel.ServerApp(model={"w": np.zeros(1)}, strategy=umbel.fed_avg(), rounds=3)
    first, second = (umbel.run(server, outer, on=umbel.Simulation(clients=2), seed=1) for _ in range(2))
    assert first.model["w"][0] == 3.0
    assert first.history == second.history
