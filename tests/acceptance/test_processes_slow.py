"""A client that takes long does not stop the others, whose updates wait for its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

import umbel

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs named pipes")
LARGE = 3_000_000  # elements; a worker has room for less, at first


def test_the_first_ends_last(tmp_path: Path) -> None:
    """The other worker gets memory for all that it makes meanwhile; else this would not end."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    client = umbel.ClientApp()

    @client.train
    def train(model: umbel.Arrays, ctx: umbel.Context) -> umbel.Update:
        if ctx.client.name == "0":
            pipe.read_bytes()
        made = model + float(ctx.client.name)
        if ctx.client.name == "4":
            pipe.write_bytes(b"done")
        return umbel.Update(model=made)

    server = umbel.ServerApp(
        model={"w": np.zeros(LARGE, np.float32)}, strategy=umbel.fed_avg(cohort=umbel.sample.everyone()), rounds=2
    )
    on = umbel.Simulation(clients=5, engine="processes", workers=2, limit=60)
    result = umbel.run(server, client, on=on, seed=1)
    assert result.model is not None
    assert set(result.model["w"].tolist()) == {4.0}
    assert not result.failures
