"""What README.md says about the network, done as a stranger does it: its commands give the output that it shows.

Only the ports differ, which other programs may have, and `pip install`, which the tests' environment has behind it.
"""

from __future__ import annotations

import re
import shlex
from contextlib import ExitStack
from pathlib import Path

import pytest

import umbel
from tests.acceptance.deployed import Program, command
from tests.docs.documents import ROOT, fences
from umbel.apps.load import load_client, load_server

SECTION = (
    (ROOT / "README.md").read_text(encoding="utf-8").split("## Over a network in five minutes")[1].split("\n## ")[0]
)
FREE_PORTS = ("--port", "0", "--pages", "")
WORKS_ON = {"server": "Ready.", "node": "connected: "}  # these do not end, but say this

MASKS = (  # what differs from one time to the next
    (r"umbel://localhost:\d+/[\w.-]+", "ADDRESS"),
    (r"umbel://localhost:\d+", "SERVER"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME"),
    (r"fetch [0-9a-f]{8}", "fetch RUN"),
)


def shown() -> list[tuple[list[str], list[str]]]:
    """Each command, and the lines that it is to print."""
    found: list[tuple[list[str], list[str]]] = []
    for language, source in fences(SECTION):
        assert language == "console"
        for line in source.splitlines():
            if line.startswith("$ "):
                found.append((shlex.split(line[2:]), []))
            else:
                found[-1][1].append(line)
    return found


def masked(line: str) -> str:
    for pattern, word in MASKS:
        line = re.sub(pattern, word, line)
    return line.rstrip()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    place = tmp_path / "home"
    place.mkdir()
    return place


def test_the_commands_of_the_readme_give_what_it_shows(home: Path) -> None:
    addresses: dict[str, str] = {}  # by the one that README shows
    done: list[str] = []
    with ExitStack() as programs:
        for words, lines in shown():
            if words[0] == "pip":
                continue
            assert words[0] == "umbel"
            arguments = [addresses.get(word, word) for word in words[1:]]
            if (kind := arguments[0]) in WORKS_ON:
                started = Program(home, *arguments, *(FREE_PORTS if kind == "server" else ()))
                programs.callback(started.close)
                started.wait_for(WORKS_ON[kind])
                printed = started.text
            else:
                printed = command(home, *arguments).stdout
            assert [line for line in map(masked, lines) if line not in set(map(masked, printed.splitlines()))] == []
            for verb in ("node", "login"):
                for address in re.findall(rf"umbel {verb} (umbel://\S+)", "\n".join(lines)):
                    addresses[address] = re.findall(rf"umbel {verb} (umbel://\S+)", printed)[0]
            done.append(kind)
    assert done == ["new", "server", "node", "login", "run"]


def test_with_three_nodes_it_is_the_simulation_and_so_it_is_from_python(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What README says below its commands."""
    monkeypatch.setenv("HOME", str(home))
    command(home, "new", "readmefed")
    app = home / "readmefed"
    with ExitStack() as programs:
        server = Program(home, "server", "--dir", "fed", *FREE_PORTS)
        programs.callback(server.close)
        server.wait_for(r"Ready\.")
        ticket, token = (re.findall(rf"umbel {verb} (\S+)", server.text)[0] for verb in ("node", "login"))
        for name in ("berlin", "lyon", "turin"):
            node = Program(home, "node", ticket, "--name", name, "--app", "readmefed")
            programs.callback(node.close)
            node.wait_for("connected: ")
        command(home, "login", token)
        here, there = (command(home, "run", "readmefed", *on, "--json").stdout for on in ((), ("--on", "localhost")))
        digests = [re.findall(r'"model": "(\w+)"', printed)[-1] for printed in (here, there)]
        assert digests[0] == digests[1]
        sides = load_server("readmefed.app:server", path=app), load_client("readmefed.app:client", path=app)
        result = umbel.run(*sides, on=umbel.connect(), seed=1)
    assert result.model is not None
    assert result.model.digest() == digests[0]
