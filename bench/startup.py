"""What it costs to import Umbel, to begin a run, and to install it.

python bench/startup.py [--no-install]

Prints one JSON line per figure, then a table. Times are medians over fresh interpreters, NumPy's and
ours taken in turn, so that both see the same machine. --no-install leaves out what needs a package index.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from figures import Figure, report

ROOT = Path(__file__).parents[1]
REPEATS = 9
HEAVY = [
    "asyncio",
    "cryptography",
    "cyclopts",
    "grpc",
    "jax",
    "keras",
    "matplotlib",
    "multiprocessing",
    "pandas",
    "ray",
    "rich",
    "scipy",
    "sklearn",
    "sqlite3",
    "ssl",
    "tensorflow",
    "torch",
    "urllib.request",
    "xgboost",
]


def imports() -> Iterator[Figure]:
    """Measure `import umbel` against `import numpy`."""
    numpy, ours, touched = [], [], []
    for _ in range(REPEATS):
        numpy.append(import_seconds("numpy"))
        ours.append(import_seconds("umbel"))
        touched.append(import_seconds("umbel; [getattr(umbel, name) for name in umbel.__all__]"))
    base, total = statistics.median(numpy), statistics.median(ours)
    yield Figure(figure="import numpy", value=1e3 * base, unit="ms")
    yield Figure(figure="import umbel", value=1e3 * total, unit="ms")
    yield Figure(figure="import umbel over numpy", value=1e3 * (total - base), unit="ms", budget=40)
    yield Figure(figure="every public name touched", value=1e3 * statistics.median(touched), unit="ms")
    yield Figure(figure="import umbel / import numpy", value=total / base, unit="x")
    loaded = python(f"import umbel, sys; print(*(m for m in {HEAVY!r} if m in sys.modules))")
    yield Figure(figure="heavy modules loaded", value=len(loaded.split()), unit="modules", budget=0, detail=loaded)


def import_seconds(name: str) -> float:
    """Import one module in a fresh interpreter."""
    return float(python(f"import time; t = time.perf_counter(); import {name}; print(time.perf_counter() - t)"))


def python(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return done.stdout.strip()


FIRST = """
import time
import numpy as np
import umbel
import {module}

client = umbel.ClientApp()

@client.train
def train(model, ctx):
    {module}.__name__  # its import is a worker's first work
    return umbel.Update(model=model, metrics={{"at": time.time() - begin}})

server = umbel.ServerApp(
    model={{"w": np.zeros(10)}}, strategy=umbel.fed_avg(cohort=umbel.sample.count(1)), rounds=1
)
begin = time.time()
result = umbel.run(server, client, on=umbel.Simulation(4, engine="processes", workers=2), seed=1)
print(result.history["at"][0])
"""


def first_client() -> Iterator[Figure]:
    """Measure the time from `umbel.run` until the first client is trained in a worker, imports of the user's apart."""
    for module in ("numpy", "torch"):
        if importlib.util.find_spec(module) is None:
            continue
        first, imported = [], []
        for _ in range(REPEATS):
            first.append(float(python(FIRST.format(module=module))))
            imported.append(import_seconds_together(module) if module != "numpy" else 0.0)
        over = statistics.median(first) - statistics.median(imported)
        yield Figure(figure=f"first client trained, {module}", value=statistics.median(first), unit="s")
        yield Figure(figure=f"... over the import of {module}", value=over, unit="s", budget=0.3)


def import_seconds_together(name: str) -> float:
    """Import a module in two fresh interpreters at once, after NumPy, as two workers do; until both have."""
    program = f"import numpy, time; t = time.perf_counter(); import {name}; print(time.perf_counter() - t)"
    both = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    return max(float(process.communicate()[0]) for process in both)


def command_line() -> Iterator[Figure]:
    """Measure `umbel --help`, from process start to its end."""
    command = [str(Path(sys.executable).parent / "umbel"), "--help"]
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    yield Figure(figure="umbel --help", value=statistics.median(seconds), unit="s", budget=0.35)


def installation() -> Iterator[Figure]:
    """Install Umbel into an empty environment, and look at what came."""
    with tempfile.TemporaryDirectory() as folder:
        venv = Path(folder) / "venv"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
        pip = [sys.executable, "-m", "pip", "--python", str(venv / "bin" / "python")]
        subprocess.run([*pip, "install", "--quiet", str(ROOT)], check=True)
        listed = json.loads(subprocess.run([*pip, "list", "--format=json"], check=True, capture_output=True).stdout)
        sizes = {file: file.stat().st_size for file in (venv / "lib").rglob("*") if file.is_file()}
    whole, compiled = sum(sizes.values()), sum(size for file, size in sizes.items() if file.suffix == ".pyc")
    names = " ".join(sorted(dist["name"] for dist in listed))
    yield Figure(figure="distributions installed", value=len(listed), unit="packages", budget=20, detail=names)
    detail = f"{whole / 1e6:.0f} MB with what pip compiles"
    yield Figure(figure="size installed", value=(whole - compiled) / 1e6, unit="MB", budget=115, detail=detail)


def main() -> int:
    """Print each figure as it comes, then the table; return 1 if one is over its budget."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--no-install", action="store_true", help="leave out what needs a package index")
    options = parser.parse_args()
    measures = (imports, command_line, first_client, *([] if options.no_install else [installation]))
    missed: int = report(measure() for measure in measures)
    return missed


if __name__ == "__main__":
    sys.exit(main())
