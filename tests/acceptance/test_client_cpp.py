"""A client in C++, written from docs/wire.md and the .proto alone, is built and trains beside Python nodes."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance import foreign
from tests.acceptance.processes import PATIENCE

CLIENT = Path(__file__).parents[2] / "examples" / "clients" / "cpp"
TOOLS = ("make", "g++", "pkg-config", "protoc", "grpc_cpp_plugin")
LIBRARIES = ("grpc++", "protobuf", "openssl")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client, built."""
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        pytest.skip(f"needs libgrpc++-dev: {', '.join(missing)} cannot be found")
    if subprocess.run(["pkg-config", "--exists", *LIBRARIES], check=False).returncode:
        pytest.skip(f"needs libgrpc++-dev: pkg-config does not find all of {', '.join(LIBRARIES)}")
    with foreign.shared(tmp_path_factory, "cpp") as place:
        flags = (f"BUILD={place}", "CXXFLAGS=-O1 -Wall -Wextra -Werror")
        build = ["make", "--directory", str(CLIENT), "--jobs", "2", *flags]
        done = subprocess.run(build, capture_output=True, text=True, check=False, timeout=4 * PATIENCE)
        assert done.returncode == 0, done.stdout + done.stderr
        return place / "client"


@pytest.fixture(scope="module")
def fed(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[foreign.Rowing]:
    with foreign.rowing(tmp_path_factory.mktemp("rows"), [str(program)]) as made:
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
