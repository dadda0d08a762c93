"""What it costs to import and to install Umbel.

python bench/startup.py [--no-install]

Prints one JSON line per figure, then a table. Times are medians over fresh interpreters, NumPy's and
ours taken in turn, so that both see the same machine. --no-install leaves out what needs a package index.
"""

from __future__ import annotations

import argparse
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
        size = sum(file.stat().st_size for file in (venv / "lib").rglob("*") if file.is_file())
    names = " ".join(sorted(dist["name"] for dist in listed))
    yield Figure(figure="distributions installed", value=len(listed), unit="packages", budget=20, detail=names)
    yield Figure(figure="size installed", value=size / 1e6, unit="MB", budget=115)


def main() -> int:
    """Print each figure as it comes, then the table; return 1 if one is over its budget."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--no-install", action="store_true", help="leave out what needs a package index")
    options = parser.parse_args()
    measures = (imports, command_line) if options.no_install else (imports, command_line, installation)
    missed: int = report(measure() for measure in measures)
    return missed


if __name__ == "__main__":
    sys.exit(main())
