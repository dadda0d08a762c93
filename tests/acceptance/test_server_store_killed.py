"""kill -9 at any moment: the server's store has what it acknowledged, once, and its blobs are whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy")

pytest_plugins = ("tests.postgres",)
PROGRAM = Path(__file__).with_name("storing.py")

if sys.platform == "win32":
    pytest.skip("needs fork: the program dies in forks of itself", allow_module_level=True)


def survive(url: str, directory: Path, seed: int) -> None:
    spec = {"url": url, "directory": str(directory), "seed": seed, "lives": 12, "rounds": 4}
    done = subprocess.run(
        [sys.executable, str(PROGRAM), json.dumps(spec)], capture_output=True, text=True, check=False, timeout=250
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["killed"] >= 3
    assert found["acknowledged"] >= 50


@pytest.mark.parametrize("seed", [1, 2])
def test_in_sqlite(seed: int, tmp_path: Path) -> None:
    directory = tmp_path / "server"
    survive(f"sqlite:///{directory}/umbel.sqlite", directory, seed)


@pytest.mark.parametrize("seed", [3, 4])
def test_in_postgresql(seed: int, tmp_path: Path, postgres_url: str) -> None:
    survive(postgres_url, tmp_path / "server", seed)
