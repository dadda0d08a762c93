"""A program with worker processes that test_processes_ends.py ends in every way; it is not guarded by __main__.

python ending.py SPEC    SPEC is JSON: {"dir": null or "...", "beats": "...", "stay": true, ...}
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import numpy as np

import umbel

spec: dict[str, Any] = json.loads(sys.argv[1])
client = umbel.ClientApp()


@client.train
def train(model: Any, ctx: Any) -> umbel.Update:
    (ctx.scratch / "work").write_bytes(bytes(10_000))
    ctx.state["n"] = ctx.state.get("n", 0) + 1
    with open(spec["beats"], "a") as beats:
        beats.write(f"{ctx.round}\n")
    if ctx.round == spec.get("stay"):
        while True:
            signal.pause()
    if ctx.round == spec.get("spin"):
        import re

        re.match(r"(a*)*b", 40 * "a")  # one step of the interpreter, which it does not let go of
    if ctx.round == spec.get("crash"):
        os.kill(os.getpid(), signal.SIGKILL)
    return umbel.Update(model=model + ctx.rng.random(), metrics={"n": ctx.state["n"]})


strategy = umbel.fed_adam(lr=0.1, cohort=umbel.sample.count(4), rounds=umbel.rounds(quorum=0))
server = umbel.ServerApp(
    model={"w": np.zeros(spec.get("size", 100_000))}, strategy=strategy, rounds=spec.get("rounds", 4)
)
on = umbel.Simulation(6, engine="processes", workers=2)
result = umbel.run(server, client, on=on, seed=3, dir=spec.get("dir"))
assert result.model is not None
print(json.dumps({"model": result.model.digest(), "history": [dict(row) for row in result.history]}))
