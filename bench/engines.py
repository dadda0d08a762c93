"""Umbel among the engines of the simulation benchmarks; BENCH_ENGINES names this file."""

from __future__ import annotations

import os
import sys

_ONE = {"OMP_NUM_THREADS": "1"}
_PYTHON = os.environ.get("BENCH_PYTHON", sys.executable)
_PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sim_umbel.py")
