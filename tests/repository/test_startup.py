"""`import umbel` needs NumPy alone; how long it takes is measured by bench/startup.py, not here."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = [
    "asyncio",
    "cyclopts",
    "grpc",
    "jax",
    "matplotlib",
    "multiprocessing",
    "pandas",
    "rich",
    "scipy",
    "sklearn",
    "sqlite3",
    "ssl",
    "tensorflow",
    "torch",
    "urllib.request",
]


@pytest.mark.parametrize("statement", ["import umbel", "import umbel; dir(umbel)", "from umbel import *"])
def test_nothing_heavy_is_loaded(statement: str) -> None:
    program = f"{statement}; import sys; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []
