"""The first program of the documentation: one file with model, data and training loop, of at most 60 lines."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-subclassing-any, no-check-untyped-defs
from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

PROGRAM = Path(__file__).parents[3] / "examples" / "digits.py"
FEDERATED = """
client = umbel.ClientApp()
@client.setup
def setup(ctx):
    return Net()
@client.data
def load(ctx):
    return split(dataset, ctx.client.part)
@client.train
def train(model, ctx):
    net = umbel.torch.into(ctx.shared, model)
    loss = sgd(net, ctx.data.train, lr=ctx.config["lr"])
    return umbel.Update(model=umbel.torch.arrays(net), weight=len(ctx.data.train), metrics={"loss": loss})
@client.evaluate
def evaluate(model, ctx):
    net = umbel.torch.into(ctx.shared, model)
    return umbel.Metrics({"accuracy": accuracy(net, ctx.data.test)}, weight=len(ctx.data.test))
server = umbel.ServerApp(
    model=lambda: umbel.torch.arrays(Net()),
    strategy=umbel.fed_avg(cohort=umbel.sample.fraction(0.1), config={"lr": umbel.schedule.cosine(0.1, rounds=20)}),
    rounds=20,
)
@server.evaluate(every=5)
"""


def test_it_is_short_and_the_federated_part_is_what_the_design_shows():
    lines = PROGRAM.read_text().splitlines()
    assert len(lines) <= 60
    assert FEDERATED.strip() in "\n".join(line for line in lines if line)


def test_it_learns_to_read():
    for part in ("torch", "sklearn", "matplotlib"):
        pytest.importorskip(part)
    result = runpy.run_path(str(PROGRAM))["result"]
    assert len(result.history) == 20
    assert result.history["cohort"].tolist() == [10] * 20
    tests = result.history["test"]
    assert np.flatnonzero(~np.isnan(tests)).tolist() == [4, 9, 14, 19]
    assert tests[-1] > 0.75
    assert result.history["accuracy"][-3:].mean() > 0.8
    assert result.failures == ()
    assert {axes.get_title() for axes in result.plot().axes} == {"loss", "accuracy", "test"}
