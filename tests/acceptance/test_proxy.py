"""A node whose only way to the server is an HTTP proxy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import umbel
from tests.acceptance.deployed import COMMAND, Federation, Program
from tests.acceptance.proxies import Proxy
from umbel.apps.load import load_client, load_server

SERVER = "fed.invalid"  # a name that nobody can look up, see RFC 6761
NAMES = ["berlin", "lyon"]


def through(proxy: str, variable: str = "https_proxy") -> str:
    """The command line's program, with the address of a proxy in its environment."""
    return f"import os; os.environ[{variable!r}] = {proxy!r}; {COMMAND}"


class Behind(Federation):
    """A federation whose server has a name that only the proxy knows."""

    def start(self) -> None:
        where = ("--dir", str(self.root / "server"), "--host", "127.0.0.1", "--name", SERVER, "--name", "localhost")
        self.server = Program(self.home, "server", *where, "--port", str(self.port), "--pages", "", "--json")
        ready = json.loads(self.server.wait_for(r'\{"event": "ready".*')[0])
        self.port, self.ticket, self.token = ready["port"], ready["ticket"], ready["token"]


@pytest.fixture
def fed(tmp_path: Path) -> Iterator[Behind]:
    home = tmp_path / "home"
    home.mkdir()
    made = Behind(tmp_path, home)
    try:
        yield made
    finally:
        made.close()


def test_a_run_through_a_proxy(fed: Behind, monkeypatch: pytest.MonkeyPatch) -> None:
    target = f"{SERVER}:{fed.port}"
    with Proxy({target: fed.port}) as proxy:
        for name, variable in zip(NAMES, ("https_proxy", "http_proxy"), strict=True):
            asked = len(proxy.asked)
            fed.node(name, program=through(proxy.address, variable))
            assert target in proxy.asked[asked:]
        fed("login", fed.token, program=through(proxy.address))
        command = ("run", str(fed.app), "--on", SERVER, "--seed", "3", "--rounds", "3", "--json")
        result = json.loads(fed(*command, program=through(proxy.address)).stdout.splitlines()[-1])
        assert set(proxy.asked) == {target}
        fed.close()
    monkeypatch.setenv("HOME", str(fed.home))
    module = f"{fed.package}.app"
    apps = load_server(f"{module}:server", path=fed.app), load_client(f"{module}:client", path=fed.app)
    simulated = umbel.run(*apps, on=umbel.Simulation(NAMES), seed=3, rounds=3)
    assert simulated.model is not None
    assert (result["status"], result["failures"]) == ("finished", 0)
    assert result["model"] == simulated.model.digest()


def test_a_proxy_that_refuses_says_so(fed: Behind) -> None:
    with Proxy({}) as proxy:
        with fed.program(*fed.node_command("berlin"), program=through(proxy.address)) as node:
            node.wait_for(f"the HTTP proxy does not let this machine through to {SERVER}:{fed.port}")
            node.wait_for("ask whoever runs the proxy to permit CONNECT")
        assert set(proxy.asked) == {f"{SERVER}:{fed.port}"}


def test_a_proxy_that_is_not_there_is_named(fed: Behind) -> None:
    with Proxy({}) as gone:
        address = gone.address
    with fed.program(*fed.node_command("berlin"), program=through(address)) as node:
        node.wait_for(f"nobody answers at {address.removeprefix('http://')}, through which the way to {SERVER}")
