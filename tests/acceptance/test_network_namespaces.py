"""A server and its nodes in two network namespaces, with a cable between them that is pulled and put in again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import umbel
from tests.acceptance.deployed import COMMAND, Federation, Program
from tests.acceptance.processes import until
from umbel.apps.load import load_client, load_server

NAMES = ["berlin", "lyon"]
PATIENT = 12  # unanswered segments, each waited for twice as long as the one before: some seconds
SERVER, NODES = "10.77.0.1", "10.77.0.2"


def ip(*arguments: str) -> str:
    """What `ip` prints."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False, timeout=30)
    if done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


class Cable:
    """Two network namespaces, and all that connects them."""

    def __init__(self) -> None:
        mark = uuid.uuid4().hex[:8]
        self.server, self.nodes = f"umbel-server-{mark}", f"umbel-nodes-{mark}"
        try:
            self._lay()
        except OSError:
            self.close()
            raise

    def _lay(self) -> None:
        ip("netns", "add", self.server)
        ip("netns", "add", self.nodes)
        ip("link", "add", "cable", "netns", self.server, "type", "veth", "peer", "name", "cable", "netns", self.nodes)
        for space, address in ((self.server, SERVER), (self.nodes, NODES)):
            ip("-n", space, "address", "add", f"{address}/24", "dev", "cable")
            ip("-n", space, "link", "set", "lo", "up")
            ip("-n", space, "link", "set", "cable", "up")

    def set(self, state: str) -> None:
        ip("-n", self.nodes, "link", "set", "cable", state)

    def unanswered(self) -> int:
        """How often TCP has waited in vain for an answer, in both."""
        count = 0
        for space in (self.server, self.nodes):
            lines = ip("netns", "exec", space, "cat", "/proc/net/netstat").splitlines()
            names, numbers = (line.split() for line in lines if line.startswith("TcpExt:"))
            count += int(dict(zip(names, numbers, strict=True))["TCPTimeouts"])
        return count

    def close(self) -> None:
        for space in (self.nodes, self.server):
            if space in ip("netns", "list"):
                ip("netns", "del", space)


def inside(space: str) -> str:
    """The command line's program, which first goes into a namespace."""
    command = ["ip", "netns", "exec", space]
    return f"import os, sys; os.execvp('ip', [*{command}, sys.executable, '-c', {COMMAND!r}, *sys.argv[1:]])"


class Apart(Federation):
    """A federation whose server stands at one end of a cable, and whose nodes stand at the other."""

    def __init__(self, root: Path, home: Path, cable: Cable) -> None:
        self.cable = cable
        super().__init__(root, home)

    def start(self) -> None:
        where = ("--dir", str(self.root / "server"), "--host", SERVER, "--name", SERVER, "--port", str(self.port))
        self.server = Program(self.home, "server", *where, "--pages", "", "--json", program=inside(self.cable.server))
        ready = json.loads(self.server.wait_for(r'\{"event": "ready".*')[0])
        self.port, self.ticket, self.token = ready["port"], ready["ticket"], ready["token"]
        self("login", self.token, program=inside(self.cable.server))


@pytest.fixture
def cable() -> Iterator[Cable]:
    if not shutil.which("ip"):
        pytest.skip("needs iproute2: there is no `ip`")
    if os.geteuid() != 0:
        pytest.skip("needs iproute2: only root may make network namespaces")
    try:
        made = Cable()
    except OSError as error:
        pytest.skip(f"needs iproute2: network namespaces cannot be made here: {error}")
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def fed(cable: Cable, tmp_path: Path) -> Iterator[Apart]:
    home = tmp_path / "home"
    home.mkdir()
    made = Apart(tmp_path, home, cable)
    try:
        for name in NAMES:
            made.node(name, program=inside(cable.nodes))
        yield made
    finally:
        made.close()


def test_the_cable_is_pulled_in_the_middle_of_a_run(fed: Apart, cable: Cable, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = 40
    command = ("run", str(fed.app), "--on", SERVER, "--seed", "3", "--rounds", str(rounds), "--json")
    with fed.program(*command, program=inside(cable.server)) as run:
        run.wait_for('"round": 3')
        before = cable.unanswered()
        cable.set("down")
        until(lambda: cable.unanswered() >= before + PATIENT, "an answer that does not come")
        assert '"event": "result"' not in run.text
        cable.set("up")
        result = json.loads(run.wait_for(r'\{"event": "result".*')[0])
    monkeypatch.setenv("HOME", str(fed.home))
    module = f"{fed.package}.app"
    apps = load_server(f"{module}:server", path=fed.app), load_client(f"{module}:client", path=fed.app)
    simulated = umbel.run(*apps, on=umbel.Simulation(NAMES), seed=3, rounds=rounds)
    assert simulated.model is not None
    assert (result["status"], result["failures"]) == ("finished", 0)
    assert result["model"] == simulated.model.digest()
