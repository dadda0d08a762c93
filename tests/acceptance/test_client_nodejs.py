"""A client in JavaScript, written from docs/wire.md and the .proto alone, trains beside Python nodes."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance import foreign
from tests.acceptance.processes import PATIENCE

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "examples" / "clients" / "nodejs"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client, with what it imports beside it."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("needs nodejs: there is no node, or no npm")
    quiet = ("--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--no-update-notifier")
    with foreign.shared(tmp_path_factory, "nodejs") as place:
        if not (place / "client.js").exists():
            shutil.copy(CLIENT / "package.json", place)
            done = subprocess.run(
                ["npm", "install", *quiet], cwd=place, capture_output=True, text=True, check=False, timeout=3 * PATIENCE
            )
            if done.returncode:
                pytest.skip(f"needs nodejs: npm cannot install here: {done.stderr[-300:]}")
            shutil.copy(CLIENT / "client.js", place)
        return place / "client.js"


@pytest.fixture(scope="module")
def fed(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[foreign.Rowing]:
    proto = f"PROTO={ROOT / 'proto'}"
    with foreign.rowing(tmp_path_factory.mktemp("rows"), ["env", proto, "node", str(program)]) as made:
        yield made


@pytest.mark.parametrize(("server", "size", "dtype"), foreign.MODELS)
def test_it_trains_beside_python_nodes(fed: foreign.Rowing, server: str, size: int, dtype: str) -> None:
    foreign.check_trains(fed, server, size, dtype)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_server_ends_meanwhile_and_starts_again(fed: foreign.Rowing, how: signal.Signals) -> None:
    foreign.check_server_restarts(fed, how)


def test_it_says_what_it_cannot_do_and_stops_what_is_revoked(fed: foreign.Rowing) -> None:
    foreign.check_says_what_it_cannot(fed)
    foreign.check_stops_when_revoked(fed)


def test_it_is_short() -> None:
    assert len((CLIENT / "client.js").read_text(encoding="utf-8").splitlines()) < 250
