"""A federation in which programs in other languages train beside Python nodes, and what it must come to.

All do linear regression by gradient descent, each on the rows of its own file. So NumPy alone says what comes out.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import umbel
from tests.acceptance.deployed import COMMAND, Federation, Program, federation

EXECUTE = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"
LR, STEPS = 0.25, 3
PYTHON, OTHER = ("berlin", "lyon"), "turin"
NAMES = (*PYTHON, OTHER)
SHORT = 3  # entries of a model that travels inside messages
WIDE = 140_000  # of one that is larger than a chunk
MODELS = [("short", SHORT, "float64"), ("single", SHORT, "float32"), ("wide", WIDE, "float64")]
PROJECT = """
[project]
name = "rowsfed"
version = "1.0"

[project.entry-points."umbel.apps"]
client = "rowsfed.app:client"
server = "rowsfed.app:%s"
"""
APP = """
import numpy as np
import umbel

client = umbel.ClientApp()


@client.data
def data(ctx):
    with open(ctx.site["path"]) as lines:
        return np.array([[float(number) for number in line.split(",")] for line in lines])


def rows(ctx, model):
    return ctx.data[:, : len(model["w"])], ctx.data[:, -1]


@client.train
def train(model, ctx):
    (x, y), w = rows(ctx, model), model["w"].copy()
    for _ in range(ctx.config["steps"]):
        w -= ctx.config["lr"] * x.T @ (x @ w - y) / len(y)
    return umbel.Update(model={"w": w}, weight=len(y), metrics={"loss": np.mean((x @ w - y) ** 2)})


@client.evaluate
def evaluate(model, ctx):
    x, y = rows(ctx, model)
    return umbel.Metrics({"loss": np.mean((x @ model["w"] - y) ** 2)}, weight=len(y))


def server(size=%d, dtype="float64", steps=%d, *transforms, **rounds):
    strategy = umbel.fed_avg(config={"lr": %r, "steps": steps}, rounds=umbel.rounds(**rounds)).with_(*transforms)
    return umbel.ServerApp(model={"w": np.zeros(size, dtype)}, strategy=strategy, rounds=3)


short = server(min_nodes=3)
single = server(dtype="float32", min_nodes=3)
wide = server(%d, min_nodes=3)
endless = server(steps=10**12)
clipped = server(%d, "float64", 1, umbel.transforms.clip(1.0), on_miss="stop")
"""

Rows = NDArray[np.float64]


@contextmanager
def shared(factory: pytest.TempPathFactory, name: str) -> Iterator[Path]:
    """A directory that is the same in all of pytest's workers: what takes long to build is built once."""
    root = factory.getbasetemp()
    place = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / name
    place.mkdir(exist_ok=True)
    with (place / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield place


def made_up(name: str, examples: int) -> Rows:
    """A node's rows: WIDE numbers, then what they are to give; a short model looks at the first numbers only."""
    rng = np.random.default_rng([*name.encode()])
    x = rng.integers(-4, 5, size=(examples, WIDE)) / np.where(np.arange(WIDE) < SHORT, 8, 2000)
    return np.hstack([x, rng.integers(-8, 9, size=(examples, 1)) / 8])


def expected(size: int, sites: Iterable[Rows], rounds: int) -> Rows:
    """What so many rounds of federated averaging make of a model of zeros."""
    parts = [(rows[:, :size], rows[:, -1]) for rows in sites]
    model = np.zeros(size)
    for _ in range(rounds):
        trained = []
        for x, y in parts:
            w = model.copy()
            for _ in range(STEPS):
                w -= LR * x.T @ (x @ w - y) / len(y)
            trained.append(w)
        model = np.average(trained, axis=0, weights=[len(y) for _, y in parts])
    return model


class Rowing:
    """Two Python nodes and a program in another language; each holds rows of its own, and another number of them."""

    def __init__(self, fed: Federation) -> None:
        self.fed = fed
        self.sites = {name: made_up(name, number) for number, name in enumerate(NAMES, 1)}
        self._exit = ExitStack()
        self.other: Program

    def start(self, other: Sequence[str]) -> None:
        """Start all three, and wait until they are connected."""
        fed = self.fed
        app = self.project("short")
        commands = [fed.node_command(name, "--site", self._site(name), app=app) for name in PYTHON]
        started = [self._start(*command) for command in commands]
        given = (fed.ticket, OTHER, "rowsfed", str(self._rows(OTHER)), str(fed.root / OTHER))
        self.other = self._start(*other, *given, program=EXECUTE)
        for program in (*started, self.other):
            program.wait_for("connected")

    def _start(self, *arguments: str, program: str = COMMAND) -> Program:
        return self._exit.enter_context(self.fed.program(*arguments, program=program))

    def _rows(self, name: str) -> Path:
        path = self.fed.root / f"{name}.csv"
        path.write_text("".join(",".join(map(repr, row)) + "\n" for row in self.sites[name].tolist()))
        return path

    def _site(self, name: str) -> str:
        path = self.fed.root / f"{name}.toml"
        path.write_text(f'path = "{self._rows(name)}"\n')
        return str(path)

    def project(self, server: str) -> Path:
        """The app with this object of its module as its server side; the digest is the same for all."""
        root = self.fed.root / server
        if not root.exists():
            (root / "rowsfed").mkdir(parents=True)
            (root / "rowsfed" / "__init__.py").touch()
            (root / "rowsfed" / "app.py").write_text(APP % (SHORT, STEPS, LR, WIDE, SHORT))
            (root / "pyproject.toml").write_text(PROJECT % server)
        return root

    def submit(self, server: str, rounds: int, names: Sequence[str] = NAMES) -> str:
        """Submit a run; give its id."""
        arguments = ("--nodes", ",".join(names), "--rounds", str(rounds), "--detach")
        return self.fed("run", str(self.project(server)), "--on", "localhost", *arguments).stdout.strip()

    def ended(self, run: str) -> dict[str, Any]:
        """Wait for the end of a run; give what `umbel show --json` prints."""
        self.fed("logs", "-f", run, status=None)
        return self.fed.records("show", run)[0]

    def model(self, run: str) -> Any:
        where = self.fed.root / f"{run}.fetched"
        self.fed("fetch", run, str(where))
        return umbel.Arrays.load(where / "model.safetensors")["w"]

    def close(self) -> None:
        self._exit.close()
        self.fed.close()


@contextmanager
def rowing(root: Path, other: Sequence[str]) -> Iterator[Rowing]:
    """A federation whose third node is a command; it is given the address, its name, the app, rows, a directory."""
    made = Rowing(federation(root))
    try:
        made.start(other)
        yield made
    finally:
        made.close()


def check_run(fed: Rowing, run: str, rounds: int, size: int = SHORT, dtype: str = "float64") -> None:
    """The run came to what it must come to, and all three were counted in each round."""
    shown = fed.ended(run)
    assert (shown["status"], shown["failures"]) == ("finished", []), f"{shown}\n{fed.other.text}"
    assert [row["folded"] for row in shown["history"]] == [len(NAMES)] * rounds
    model, wanted = fed.model(run), expected(size, fed.sites.values(), rounds)
    assert model.dtype == dtype
    np.testing.assert_allclose(model, wanted, rtol=1e-4 if dtype == "float32" else 1e-9, atol=1e-7)
    assert np.abs(wanted).max() > 0.01


def check_trains(fed: Rowing, server: str, size: int, dtype: str) -> None:
    """It trains beside two Python nodes."""
    check_run(fed, fed.submit(server, 3), 3, size, dtype)


def check_server_restarts(fed: Rowing, how: signal.Signals, rounds: int = 15) -> None:
    """A run goes on when the server has been killed, or has ended, and is started again."""
    run = fed.submit("short", rounds)
    with fed.fed.program("logs", "-f", run) as logs:
        logs.wait_for("round 2")
        fed.fed.server.close(how)
    fed.fed.start()
    check_run(fed, run, rounds)
    assert fed.other.process.poll() is None


def check_says_what_it_cannot(fed: Rowing) -> None:
    """A task that needs what it does not know is a failure that the run shows."""
    shown = fed.ended(fed.submit("clipped", 1, [OTHER]))
    assert shown["status"] == "failed"
    assert "cannot do what the task needs: transforms" in shown["reason"]


def check_stops_when_revoked(fed: Rowing) -> None:
    """It stops what is revoked, and is free for the next run."""
    run = fed.submit("endless", 1, [OTHER])
    fed.other.wait_for(f"train {run}")
    fed.fed("stop", run)
    check_run(fed, fed.submit("short", 2), 2)
