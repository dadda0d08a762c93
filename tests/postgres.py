"""A PostgreSQL for tests: one for each worker that asks for it, on a socket in a directory of its own.

Test files say `pytest_plugins = ("tests.postgres",)` and take `postgres_url`, an empty database, or `postgres`.

PYTEST_DONT_REWRITE, for it may be imported before it is a plugin.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

ROOTS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
# fsync: what is tested is the end of our process, not of the machine's power. It is on the disk of a machine for tests.
SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "16MB",
    "max_connections": "50",
    "log_min_messages": "panic",
}
# Whoever starts it holds the other end of its input, and lets go of it however it ends.
KEEPER = """
import shutil, signal, subprocess, sys
place, user, *command = sys.argv[1:]
who = {"user": user, "group": int(__import__("pwd").getpwnam(user).pw_gid), "extra_groups": []} if user else {}
server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **who)
for line in sys.stdin.buffer:
    if line == b"restart\\n":
        server.send_signal(signal.SIGINT)
        server.wait()
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **who)
server.send_signal(signal.SIGQUIT)
server.wait()
shutil.rmtree(place, ignore_errors=True)
"""


class Cluster:
    """A running PostgreSQL."""

    def __init__(self, binaries: Path) -> None:
        self.binaries = binaries
        self.place = Path(tempfile.mkdtemp(prefix="umbel-pg-", dir="/tmp"))
        user = _user()
        if user:
            os.chown(self.place, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
        data = self.place / "data"
        make = [
            binaries / "initdb",
            "--pgdata",
            data,
            "--auth=trust",
            "--username=umbel",
            "--no-sync",
            "--encoding=UTF8",
        ]
        done = subprocess.run(
            [*map(str, make), "--locale=C"], user=user or None, cwd="/", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        settings = {**SETTINGS, "unix_socket_directories": str(self.place)}
        start = [
            str(binaries / "postgres"),
            "-D",
            str(data),
            *(f"--{name}={value}" for name, value in settings.items()),
        ]
        self._keeper = subprocess.Popen(
            [sys.executable, "-c", KEEPER, str(self.place), user, *start],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._names = (f"test{n}" for n in itertools.count())
        self.wait()

    def wait(self) -> None:
        """Wait until it answers."""
        import psycopg

        for _ in range(600):
            try:
                with closing(self.connect()):
                    return
            except psycopg.OperationalError:
                subprocess.run(["sleep", "0.05"], check=True)
        raise AssertionError("PostgreSQL did not start")

    def connect(self, name: str = "postgres") -> Any:
        """A connection to one of its databases."""
        import psycopg

        return psycopg.connect(f"host={self.place} user=umbel dbname={name}", autocommit=True)

    def make(self) -> str:
        """Make an empty database; gives its address."""
        name = next(self._names)
        with closing(self.connect()) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0".encode())
        return f"postgresql+psycopg://umbel@/{name}?host={self.place}"

    def cut(self) -> int:
        """End all connections to its databases; gives how many there were."""
        with closing(self.connect()) as connection:
            rows = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            ).fetchall()
        return len(rows)

    def restart(self) -> None:
        """Stop it, and start it again."""
        assert self._keeper.stdin is not None
        self._keeper.stdin.write(b"restart\n")
        self._keeper.stdin.flush()

    def stop(self) -> None:
        """Stop it for good; its files go."""
        self._keeper.communicate()


def _user() -> str:
    """As whom it runs: it refuses to run as root."""
    if os.geteuid() != 0:
        return ""
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    pytest.skip("needs postgresql: it does not run as root, and there is no user postgres or nobody")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A PostgreSQL."""
    pytest.importorskip("psycopg")
    binaries = next((path for path in ROOTS if (path / "initdb").exists() and (path / "postgres").exists()), None)
    found = shutil.which("initdb")
    if binaries is None and found is not None:
        binaries = Path(found).resolve().parent
    if binaries is None:
        pytest.skip("needs postgresql: its initdb and postgres are not installed")
    cluster = Cluster(binaries)
    yield cluster
    cluster.stop()


@pytest.fixture
def postgres_url(postgres: Cluster) -> str:
    """The address of an empty database."""
    return postgres.make()
