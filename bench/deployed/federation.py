"""A server and its nodes, each a process, over TLS: started, used, and ended however that ends."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

import umbel
from bench.deployed.programs import PATIENCE, Program
from umbel.apps.load import load_client

APP = Path(__file__).parent / "app"
UMBEL = [str(Path(sys.executable).parent / "umbel")]


@dataclass(frozen=True, slots=True)
class Place:
    """Where servers and nodes keep their files, and in which of their programs something is looked at.

    Attributes:
        directory: below which each has its own.
        command: what starts `umbel`, given who is started: "server", or a node's name.
    """

    directory: Path
    command: Callable[[str], Sequence[str | Path]] = field(default=lambda _: UMBEL)


class Federation:
    """A server that runs; nodes are added to it.

    Args:
        place: where, and how programs are started.

    Attributes:
        directory: of this federation; removed at the end.
        server: the server's program.
        nodes: the nodes' programs, by name.
        ticket, token: addresses to join with, and to submit with.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self.directory = Path(tempfile.mkdtemp(prefix="umbel-bench-", dir=place.directory))
        self._exit = ExitStack()
        self._exit.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self.ticket = self.token = ""
        self.port = 0
        self.nodes: dict[str, Program] = {}
        self.server: Program
        try:
            self.start()
        except BaseException:
            self._exit.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            for name, program in {"server": self.server, **self.nodes}.items():
                print(f"--- {name} said at last:\n{program.text}", file=sys.stderr)
        self._exit.close()

    def start(self) -> None:
        """Start the server, for the first time or again."""
        self.server = self._exit.enter_context(
            self._program(
                "server",
                *("server", "--dir", self.directory / "server", "--host", "127.0.0.1", "--port", str(self.port)),
                *("--pages", "", "--json"),
            )
        )
        ready = json.loads(self.server.wait_for('"event": "ready"')[1])
        self.port = ready["port"]
        if ready["ticket"]:
            self.ticket, self.token = ready["ticket"], ready["token"]

    def _program(self, who: str, *arguments: str | Path) -> Program:
        home = self.directory / "home"
        home.mkdir(exist_ok=True)
        return Program([*self._place.command(who), *arguments], {"HOME": str(home)})

    def node(self, name: str, *more: str | Path, wait: bool = True) -> Program:
        """Start a node, and wait until it is connected."""
        node = self._exit.enter_context(
            self._program(
                name,
                *("node", self.ticket, "--name", name, "--app", APP, "--dir", self.directory / name, "--json"),
                *more,
            )
        )
        self.nodes[name] = node
        if wait:
            self.connected(name)
        return node

    def connected(self, name: str) -> None:
        """Wait until a node is connected."""
        self.nodes[name].wait_for('"event": "connected"')

    def journal(self, name: str) -> list[dict[str, Any]]:
        """What the owner of a node reads of it."""
        with self._program("owner", "node", "log", "--name", name, "--dir", self.directory / name, "--json") as program:
            program.process.wait(PATIENCE)
            program.end()
            return [json.loads(line) for _, line in program.lines if line.startswith("{")]

    def ticket_for(self, uses: int) -> str:
        """A ticket for so many nodes."""
        program = self._program("operator", "ticket", "create", "--uses", str(uses), "--on", self.token, "--json")
        with program:
            return str(json.loads(program.wait_for('"address"')[1])["address"])

    def run(
        self,
        model: Mapping[str, np.ndarray[Any, Any]],
        *,
        rounds: int,
        evaluate: bool,
        heard: Callable[[Any], object] = lambda _: None,
        nodes: int = 0,
    ) -> umbel.Result:
        """Submit a run, and follow it to its end.

        Args:
            model: what it starts from.
            rounds: how many.
            evaluate: is there an evaluation after each round?
            heard: is called with each event of the run.
            nodes: how many there must be; 0: all that were started here.
        """
        strategy = umbel.fed_avg(
            rounds=umbel.rounds(min_nodes=nodes or len(self.nodes)),
            evaluate=umbel.evaluation(every=1) if evaluate else umbel.evaluation(every=0),
        )
        app = umbel.ServerApp(model=model, strategy=strategy, rounds=rounds)
        client = load_client("umbelbench.app:client", path=APP)
        return umbel.connect(self.token).run(app, client, rounds=rounds, seed=1, heard=heard)
