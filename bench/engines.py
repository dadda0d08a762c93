"""Umbel among the engines of the yardsticks; the environment variable BENCH_ENGINES names this file.

`umbel` is the README's idiom with two worker processes, `umbel-inline` the same in one process, `umbel-durable` keeps
each round in a directory, and `umbel-declared` declares its local training instead of looping itself.
"""

from __future__ import annotations

import os
from pathlib import Path

from engines import ALL, TRAIN, Engine

HERE = Path(__file__).resolve().parent
PYTHON = os.environ.get("BENCH_PYTHON", str(HERE.parent / ".venv" / "bin" / "python"))
PROGRAM = str(HERE / "sim_umbel.py")

ENGINES = {
    "umbel": Engine([PYTHON, PROGRAM, "{w}"], ALL),
    "umbel-inline": Engine([PYTHON, PROGRAM, "{w}", "--engine", "inline"], ALL),
    "umbel-durable": Engine([PYTHON, PROGRAM, "{w}", "--durable", "yes"], ALL),
    "umbel-declared": Engine([PYTHON, PROGRAM, "{w}", "--declared", "yes"], TRAIN),
}
