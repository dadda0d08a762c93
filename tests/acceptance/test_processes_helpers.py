"""Large models: updates are folded by several processes, with the same bits, whichever of them is killed."""

# handlers take what they are given

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import umbel
from tests.acceptance.federations import CLIENTS, Federation, outcome
from tests.acceptance.processes import children, kill, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere large arrays do not lie in shared memory")


def large(dtype: str = "float32") -> Federation:
    """A model of several million parameters, and an optimizer that has a state."""
    client = umbel.ClientApp()

    @client.train
    def train(model: umbel.Arrays, ctx: Any) -> umbel.Update:
        moved = model + float(ctx.rng.normal()) / 100
        return umbel.Update(model=moved, weight=float(ctx.rng.integers(1, 9)))

    values = np.random.default_rng(3).normal(size=3_000_001)
    model = umbel.Arrays({"w": values.astype(dtype), "b": values[:5]})
    strategy = umbel.fed_adam(lr=0.01, cohort=umbel.sample.count(7))
    return umbel.ServerApp(model=model, strategy=strategy, rounds=5), client


def helping() -> list[int]:
    return [pid for pid in children() if b"umbel.simulation.helper" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_they_are_killed(dtype: str, caplog: pytest.LogCaptureFixture) -> None:
    wanted = outcome(umbel.run(*large(dtype), on=umbel.Simulation(CLIENTS, engine="inline"), seed=2))
    killed: list[int] = []

    def watch(result: umbel.Result) -> None:
        if len(result.history) >= 2 and not killed:
            until(helping, "the helpers")
            killed.append(helping()[0])
            kill(killed[0])

    before = set(children())
    on = umbel.Simulation(CLIENTS, engine="processes", workers=3)
    with caplog.at_level(logging.WARNING, "umbel"):
        assert outcome(umbel.run(*large(dtype), on=on, seed=2, callbacks=[watch])) == wanted
    assert len(killed) == 1
    assert [r.getMessage().split(":")[0] for r in caplog.records] == ["helper-died"]
    assert set(children()) <= before


def test_small_models_need_none() -> None:
    client = umbel.ClientApp()

    @client.train
    def train(model: umbel.Arrays, ctx: Any) -> umbel.Update:
        return umbel.Update(model=model + 1)

    seen: list[int] = []

    def watch(result: umbel.Result) -> None:
        seen.extend(helping())

    server = umbel.ServerApp(model=umbel.Arrays({"w": np.zeros(1000, np.float32)}), strategy=umbel.fed_avg(), rounds=3)
    on = umbel.Simulation(CLIENTS, engine="processes", workers=2)
    result = umbel.run(server, client, on=on, seed=2, callbacks=[watch])
    assert result.model is not None
    assert float(result.model["w"][0]) == 3
    assert not seen
