"""Clients that give the model plus a number of their own; each tells when it was asked and when it was done."""

from __future__ import annotations

import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np

import umbel

client = umbel.ClientApp()


@client.train
def train(model: Any, ctx: Any) -> umbel.Update:
    """Answer, and say when; a model that has to be awaited takes its time before this is called."""
    began = time.time()
    answer = model + np.float32(1 + zlib.crc32(ctx.client.name.encode()) % 1000)
    if "meet" in ctx.site:
        meet(Path(ctx.site["meet"]), ctx.site["of"], ctx.client.name)
    return umbel.Update(model=answer, weight=1, metrics={"began": began, "ended": time.time()})


@client.evaluate
def evaluate(model: Any, _ctx: Any) -> umbel.Metrics:
    """Answer at once."""
    return umbel.Metrics({"size": float(len(model))}, weight=1)


def meet(place: Path, count: int, name: str) -> None:
    """Wait until so many are here, at most two minutes, so that all answer at once."""
    (place / name).touch()
    end = time.monotonic() + 120
    while len(list(place.iterdir())) < count and time.monotonic() < end:
        time.sleep(0.02)


server = umbel.ServerApp(
    model={"values": np.zeros(10, np.float32)},
    strategy=umbel.fed_avg(rounds=umbel.rounds(min_nodes=2)),
    rounds=10,
)
