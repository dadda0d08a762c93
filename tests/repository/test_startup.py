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


FRAMEWORKS = ["jax", "matplotlib", "pandas", "sklearn", "tensorflow", "torch"]


def loaded(statement: str, modules: list[str]) -> list[str]:
    """Run a statement in a fresh interpreter; return which of these modules it loaded."""
    program = f"{statement}; import sys; print(*(name for name in {modules!r} if name in sys.modules))"
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()


@pytest.mark.parametrize("statement", ["import umbel", "import umbel; dir(umbel)"])
def test_nothing_heavy_is_loaded(statement: str) -> None:
    assert loaded(statement, HEAVY) == []


def test_no_framework_is_loaded_unless_the_user_did() -> None:
    assert loaded("from umbel import *", FRAMEWORKS) == []
