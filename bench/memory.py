"""What a simulation with worker processes takes in memory, over clients and over rounds.

python bench/memory.py YARDSTICKS

Prints one JSON line per figure, then a table. Memory is what all processes together have of their own and share, each
page counted once: anonymous and shared memory, and not the files that are mapped, such as libraries and data sets.
YARDSTICKS is the folder with the workloads. Needs Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from figures import Figure, report

import umbel

HERE = Path(__file__).resolve().parent
PARAMETERS = 140_000
FEW = 30  # rounds with which few and many clients are compared
# workload, what it is with so many rounds, and the round from which on memory may not grow
ROUNDS = (("W1", "1000:100:300", 30), ("W2", "100:10:60", 10))
OWN = ("Pss_Anon:", "Pss_Shmem:")


def together() -> int:
    """Bytes that this process and its children take."""
    return sum(proportional(pid) for pid in [os.getpid(), *children()])


def children() -> list[int]:
    return [int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]


def proportional(pid: int) -> int:
    """Bytes of one process; what it shares with others in parts."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(OWN))


def clients(count: int) -> list[int]:
    """Bytes after each round with so many clients."""
    client = umbel.ClientApp()

    @client.data
    def data(ctx: Any) -> Any:
        return ctx.rng.normal(size=64).astype(np.float32)

    @client.train
    def train(model: Any, ctx: Any) -> umbel.Update:
        return umbel.Update(model=model + float(ctx.data[0]), weight=1, metrics={"loss": 1.0})

    taken: list[int] = []
    server = umbel.ServerApp(
        model={"w": np.zeros(PARAMETERS, np.float32)},
        strategy=umbel.fed_avg(cohort=umbel.sample.count(100)),
        rounds=FEW,
    )
    on = umbel.Simulation(count, engine="processes", workers=2)
    umbel.run(server, client, on=on, seed=1, callbacks=[lambda _: taken.append(together())])
    return taken


def workload(name: str) -> list[int]:
    """Bytes after each round of our program for a workload of the yardsticks."""
    import recorder
    import workloads

    workloads.make_data()
    taken: list[int] = []
    mark = recorder.mark

    def marked(event: str) -> None:
        mark(event)
        if event == "end":
            taken.append(together())

    recorder.mark = marked
    sys.argv = ["sim_umbel.py", name]
    runpy.run_path(str(HERE / "sim_umbel.py"), run_name="__main__")
    return taken


def over_clients(yardsticks: Path) -> Iterator[Figure]:
    """Measure what clients cost that are seldom asked."""
    few, many = (max(measured(yardsticks, "clients", n)) for n in (1_000, 100_000))
    yield Figure(figure="1,000 clients", value=few / 1e6, unit="MB")
    yield Figure(figure="100,000 clients over that", value=(many - few) / 1e6, unit="MB", budget=50)


def over_rounds(yardsticks: Path) -> Iterator[Figure]:
    """Measure whether memory stays the same."""
    for name, size, warm in ROUNDS:
        taken = measured(yardsticks, "workload", name, BENCH_SIZE=f"{name}:{size}")
        yield Figure(figure=f"{name}, after {len(taken)} rounds", value=taken[-1] / 1e6, unit="MB")
        yield Figure(figure=f"{name}, over that after {warm}", value=taken[-1] / taken[warm - 1], unit="x", budget=1.02)


def measured(yardsticks: Path, what: str, argument: str | int, **variables: str) -> list[int]:
    """What a function of this file gives in an interpreter of its own."""
    with tempfile.TemporaryDirectory() as directory:
        paths = [str(HERE), str(yardsticks), os.environ.get("PYTHONPATH", "")]
        surroundings = {
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "BENCH_DATA": f"{directory}/data",  # a file, and no memory
            "BENCH_OUT": f"{directory}/out",
        }
        out = Path(directory, "taken")
        program = [sys.executable, __file__, str(yardsticks), "--what", what, str(argument), str(out)]
        environment = {**os.environ, **surroundings, **variables}
        subprocess.run(program, env=environment, check=True, stdout=subprocess.DEVNULL)
        found: list[int] = json.loads(out.read_text())
    return found


def main() -> int:
    """Print each figure as it comes, then the table; return 1 if one is over its budget."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("yardsticks", type=Path)
    parser.add_argument("--what", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not (options.yardsticks / "workloads.py").exists():
        parser.error(f"{options.yardsticks} is not the folder with the workloads: it has no workloads.py")
    if options.what:
        what, argument, out = options.what
        Path(out).write_text(json.dumps(clients(int(argument)) if what == "clients" else workload(argument)))
        return 0
    yardsticks = options.yardsticks.resolve()
    missed: int = report((over_clients(yardsticks), over_rounds(yardsticks)))
    return missed


if __name__ == "__main__":
    sys.exit(main())
