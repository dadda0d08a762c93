"""What a simulation with worker processes takes in memory, over clients and over rounds.

python bench/memory.py [--rounds N]

Prints one JSON line per figure, then a table. Memory is the proportional set size of all processes together, so that
what they share counts once, shared memory included. Needs Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from figures import Figure, report

import umbel

MODEL = 140_000  # parameters, as in workload W1
WARM = 30  # rounds until every cache has what it will have


def together() -> int:
    """Bytes that this process and its children take."""
    return sum(proportional(pid) for pid in [os.getpid(), *children()])


def children() -> list[int]:
    return [int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]


def proportional(pid: int) -> int:
    """Bytes of one process; what it shares with others in parts."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


def run(clients: int, rounds: int, *, stateful: bool = False) -> list[int]:
    """Bytes after each round."""
    client = umbel.ClientApp()

    @client.data
    def data(ctx: Any) -> Any:
        return ctx.rng.normal(size=64).astype(np.float32)

    @client.train
    def train(model: Any, ctx: Any) -> umbel.Update:
        if stateful:
            ctx.state["last"] = np.full(500, ctx.round)
        return umbel.Update(model=model + float(ctx.data[0]), weight=1, metrics={"loss": 1.0})

    taken: list[int] = []
    server = umbel.ServerApp(
        model={"w": np.zeros(MODEL, np.float32)},
        strategy=umbel.fed_avg(cohort=umbel.sample.count(100)),
        rounds=rounds,
    )
    on = umbel.Simulation(clients, engine="processes", workers=2)
    umbel.run(server, client, on=on, seed=1, callbacks=[lambda _: taken.append(together())])
    return taken


def over_rounds(rounds: int) -> Iterator[Figure]:
    """Measure whether memory stays the same."""
    for stateful in (False, True):
        taken = measured(clients=1000, rounds=rounds, stateful=stateful)
        name = ", states" if stateful else ""
        yield Figure(figure=f"memory after {rounds} rounds{name}", value=taken[-1] / 1e6, unit="MB")
        budget = None if stateful else 1.02  # there are more states until each client has one
        growth = taken[-1] / taken[min(WARM, rounds) - 1]
        yield Figure(figure=f"last round / round {WARM}{name}", value=growth, unit="x", budget=budget)


def over_clients() -> Iterator[Figure]:
    """Measure what clients cost that are seldom asked."""
    few, many = (max(measured(clients=n, rounds=WARM, stateful=False)) for n in (1_000, 100_000))
    yield Figure(figure="1,000 clients", value=few / 1e6, unit="MB")
    yield Figure(figure="100,000 clients over that", value=(many - few) / 1e6, unit="MB", budget=50)


def measured(**arguments: Any) -> list[int]:
    """What `run` gives in an interpreter of its own."""
    program = [sys.executable, __file__, "--run", json.dumps(arguments)]
    done = subprocess.run(program, check=True, capture_output=True, text=True)
    found: list[int] = json.loads(done.stdout)
    return found


def main() -> int:
    """Print each figure as it comes, then the table; return 1 if one is over its budget."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(run(**json.loads(options.run))))
        return 0
    missed: int = report((over_clients(), over_rounds(options.rounds)))
    return missed


if __name__ == "__main__":
    sys.exit(main())
