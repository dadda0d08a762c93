"""How quickly Umbel simulates, as ratios to the yardsticks and to other frameworks in one run on one machine.

python bench/simulation.py YARDSTICKS [--reps 3] [--workloads W1,W5] [--engines umbel,plain,...] [--table]

YARDSTICKS is the folder with the runner, the yardsticks and the peers; its setup.sh makes their environments. Engines
whose environment is not there are left out. --table prints what was measured before.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = Path(os.environ.setdefault("BENCH_RESULTS", str(Path(tempfile.gettempdir()) / "umbel-bench")))
VENVS = os.environ.setdefault("BENCH_VENVS", str(Path(tempfile.gettempdir()) / "venv-bench-"))
OURS = ("umbel", "umbel-inline", "umbel-durable", "umbel-declared")
YARDSTICKS = ("plain", "pool-2proc", "pool-2proc-lean", "vmap-torch", "vmap-jax-1core")
PEERS = {
    "Flower": ("flwr-2x1",),
    "pfl-research": ("pfl-1proc", "pfl-2proc"),
    "BlazeFL": ("blazefl-serial", "blazefl-2proc", "blazefl-2thread"),
    "FedJAX": ("fedjax-jit", "fedjax-jit-1core"),
}
VENV_OF = {"flwr": "flwr", "pfl": "pfl", "blazefl": "blazefl", "fedjax": "fedjax", "vmap-jax": "jax"}


@dataclass(frozen=True, slots=True)
class Line:
    """A budget: our engine's figure over another's.

    Attributes:
        workload, engine: of what of ours.
        figure: "round" for seconds a round, "memory" for the peak.
        against: the engine, or the best of several.
        most: the ratio that is allowed; for "at least so many times quicker", one over that.
    """

    workload: str
    engine: str
    figure: str
    against: tuple[str, ...]
    most: float


def budgets() -> list[Line]:
    """The lines of the budgets, one after the other."""
    every = tuple(engine for engines in PEERS.values() for engine in engines)
    flower, pfl = PEERS["Flower"], PEERS["pfl-research"]
    lean = ("pool-2proc-lean", "vmap-torch", "vmap-jax-1core")
    lines = [
        Line("W1", "umbel", "round", ("pool-2proc",), 1.25),
        Line("W1", "umbel", "round", flower, 1 / 25),
        Line("W1", "umbel", "round", every, 1 / 1.5),
        Line("W1", "umbel-declared", "round", lean, 1.3),
        Line("W1", "umbel-declared", "round", flower, 1 / 80),
        Line("W4", "umbel", "round", ("pool-2proc",), 1.6),
        Line("W4", "umbel", "memory", ("pool-2proc",), 1.0),
        Line("W4", "umbel", "round", flower, 1 / 12),
        Line("W4", "umbel", "round", every, 1.0),
        Line("W5", "umbel", "round", ("plain",), 2.0),
        Line("W5", "umbel", "round", flower, 1 / 500),
        Line("W5", "umbel", "round", pfl, 1 / 10),
    ]
    lines.append(Line("W2", "umbel-durable", "round", ("umbel",), 1.05))
    for workload in ("W2", "W3"):
        lines += [
            Line(workload, "umbel", "round", ("pool-2proc",), 1.08),
            Line(workload, "umbel", "round", flower, 1 / 2),
            Line(workload, "umbel", "round", every, 1.0),
        ]
    return lines


def there(engine: str) -> bool:
    """Is the environment of an engine made?"""
    venv = next((venv for name, venv in VENV_OF.items() if engine.startswith(name)), "plain")
    return engine in OURS or Path(f"{VENVS}{venv}/bin/python").exists()


def measure(yardsticks: Path, engines: list[str], workloads: str, reps: int) -> None:
    """Have the runner measure these engines in turn."""
    python = f"{VENVS}plain/bin/python"
    command = [python, "run.py", "--only", ",".join(engines), "--workloads", workloads, "--reps", str(reps)]
    environment = {**os.environ, "BENCH_ENGINES": str(HERE / "engines.py")}
    subprocess.run(command, cwd=yardsticks, env=environment, check=True)
    subprocess.run([python, "check.py"], cwd=yardsticks, env=environment, check=True)


def found() -> dict[tuple[str, str], dict[str, float]]:
    """Medians over the runs, by workload and engine."""
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for file in sorted(RESULTS.glob("*.json")):
        run = json.loads(file.read_text())
        if run["rc"] == 0 and run["round_median"]:
            runs.setdefault((run["workload"], run["engine"]), []).append(run)
    return {
        key: {
            "round": statistics.median(run["round_median"] for run in of),
            "first": statistics.median(run["t_first_round"] + run["first_round"] for run in of),
            "memory": statistics.median(run["mem_anon"] for run in of),
            "runs": len(of),
        }
        for key, of in runs.items()
    }


def table() -> int:
    """Print what was measured, and each budget; return how many are missed."""
    medians = found()
    print(f"\n{'':5}{'engine':18}{'ms a round':>12}{'until round 1, s':>18}{'peak MB':>9}{'runs':>6}")
    for (workload, engine), row in sorted(medians.items()):
        shown = f"{1e3 * row['round']:>12.2f}{row['first']:>18.2f}{row['memory']:>9.0f}{row['runs']:>6.0f}"
        print(f"{workload:5}{engine:18}{shown}")
    print(f"\n{'':5}{'ours':16}{'figure':8}{'against':18}{'ratio':>8}{'budget':>8}")
    missed = 0
    for line in budgets():
        ours = medians.get((line.workload, line.engine))
        theirs = [(medians[line.workload, e][line.figure], e) for e in line.against if (line.workload, e) in medians]
        if ours is None or not theirs:
            continue
        best, name = min(theirs)
        ratio = ours[line.figure] / best
        missed += ratio > line.most
        mark = "" if ratio <= line.most else "  over"
        print(f"{line.workload:5}{line.engine:16}{line.figure:8}{name:18}{ratio:>8.3f}{line.most:>8.3f}{mark}")
    return missed


def main() -> int:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("yardsticks", type=Path)
    parser.add_argument("--engines", default=",".join((*OURS, *YARDSTICKS, *sum(PEERS.values(), ()))))
    parser.add_argument("--workloads", default="W1,W2,W3,W4,W5")
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--table", action="store_true", help="measure nothing, print what was measured before")
    options = parser.parse_args()
    if not options.table:
        if not (options.yardsticks / "run.py").exists():
            parser.error(f"{options.yardsticks} is not the folder with the yardsticks: it has no run.py")
        if not there("plain"):
            parser.error(f"the runner needs the environment {VENVS}plain: ./setup.sh plain, in {options.yardsticks}")
        engines = [engine for engine in options.engines.split(",") if there(engine)]
        measure(options.yardsticks.resolve(), engines, options.workloads, options.reps)
    return 1 if table() else 0


if __name__ == "__main__":
    sys.exit(main())
