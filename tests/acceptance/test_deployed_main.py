"""A main of the user's at a server: the bits of a simulation, also if the server or the run's process is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import umbel
from tests.acceptance.deployed import Federation, federation
from tests.acceptance.processes import children, needs_proc, until
from umbel.apps.load import load_client, load_server
from umbel.errors import QuorumMissed, RunError

NAMES = ["berlin", "lyon"]
CODE = """

import os
import random

from umbel.optimize import adam


@client.use
def meddle(model, ctx, call):
    if ctx.client.name == ctx.config.get("fails"):
        raise LookupError("of the user")
    if ctx.client.name == "lyon" and ctx.round == 2 and os.path.exists(ctx.config.get("broken", "")):
        raise OSError("the disk is not mounted")
    done = call(model, ctx)
    if "named" in ctx.config:
        return umbel.Metrics({**done.values, "evaluate.accuracy": 0.5, "round": 7.0}, weight=done.weight)
    return done


looped = umbel.ServerApp(model=server.model, rounds=40)
optimizer = adam(lr=0.1)


@looped.main
def main(fed):
    s = fed.state or {"model": fed.initial, "opt": optimizer.init(fed.initial)}
    for r in fed.rounds():
        got = fed.train(s["model"], cohort=umbel.sample.everyone(), config={"lr": 0.1})
        s["model"], s["opt"] = optimizer.step(s["model"], got.mean, s["opt"])
        print("round", r)
        fed.commit(s, metrics={**got.metrics, "drawn": random.random()})


@looped.evaluate(every=2)
def central(model, ctx):
    return umbel.Metrics({"central": ctx.rng.normal() + random.random()})


broken = umbel.ServerApp(model=server.model, rounds=2)


@broken.main
def main(fed):
    for r in fed.rounds():
        raise LookupError("of the user")
"""


@pytest.fixture(scope="module")
def fed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    made = federation(tmp_path_factory.mktemp("main"), CODE)
    try:
        for name in NAMES:
            made.node(name)
        yield made
    finally:
        made.close()


@pytest.fixture
def client(fed: Federation, monkeypatch: pytest.MonkeyPatch) -> umbel.ClientApp:
    monkeypatch.setenv("HOME", str(fed.home))
    return load_client(f"{fed.package}.app:client", path=fed.app)


def server(fed: Federation, name: str) -> umbel.ServerApp:
    return load_server(f"{fed.package}.app:{name}", path=fed.app)


def same(result: Any, other: Any) -> None:
    assert result.model.digest() == other.model.digest()
    assert result.history == other.history
    assert dict(result.clients) == dict(other.clients)
    assert (result.failures, result.seed, result.status) == (other.failures, other.seed, other.status)


def run_once_killed(fed: Federation, client: umbel.ClientApp, kill: Any) -> umbel.Result:
    killed: list[int] = []

    def kill_once(result: Any) -> None:
        if not killed and len(result.history) >= 2:
            killed.append(len(result.history))
            kill()

    result = umbel.run(
        server(fed, "looped"), client, on=umbel.connect(fed.token), seed=5, callbacks=[kill_once], name="looped"
    )
    assert killed
    assert killed[0] < 40
    return result


def simulated(fed: Federation, client: umbel.ClientApp) -> umbel.Result:
    return umbel.run(server(fed, "looped"), client, on=umbel.Simulation(NAMES), seed=5)


def test_the_server_may_be_killed_meanwhile(fed: Federation, client: umbel.ClientApp) -> None:
    needs_proc()

    def kill() -> None:
        before = children(fed.server.process.pid)
        assert before
        assert fed.server.close(signal.SIGKILL) == -signal.SIGKILL
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in before), "the end of the run's process")
        fed.start()

    same(run_once_killed(fed, client, kill), simulated(fed, client))
    run = fed.records("ls")[0]["id"]
    assert "round 40" in fed("logs", run).stdout
    until(lambda: not children(fed.server.process.pid), "the end of the run's process")


def test_the_runs_process_may_be_killed_meanwhile(fed: Federation, client: umbel.ClientApp) -> None:
    needs_proc()

    def kill() -> None:
        (pid,) = children(fed.server.process.pid)
        os.kill(pid, signal.SIGKILL)

    with pytest.raises(RunError, match="ended by SIGKILL"):
        run_once_killed(fed, client, kill)
    run = fed.records("ls")[0]["id"]
    fed("resume", run)
    fed("logs", "-f", run)
    shown = fed.records("show", run)[0]
    assert (shown["status"], shown["round"]) == ("finished", 40)
    directory = fed.root / "fetched"
    fed("fetch", run, str(directory))
    model = simulated(fed, client).model
    assert model is not None
    assert umbel.Arrays.load(directory / "model.safetensors").digest() == model.digest()


@pytest.mark.parametrize("config", [{"fails": "lyon"}, {"named": True}])
def test_an_evaluation_tells_clients_and_metrics_apart(
    fed: Federation, client: umbel.ClientApp, config: dict[str, Any]
) -> None:
    model = server(fed, "looped").initial_model()
    assert model is not None
    there = umbel.evaluate(model, client, on=umbel.connect(fed.token), config=config)
    here = umbel.evaluate(model, client, on=umbel.Simulation(NAMES), config=config)
    assert (there.metrics, there.clients) == (here.metrics, here.clients)
    assert [str(failure) for failure in there.failures] == [str(failure) for failure in here.failures]


@pytest.mark.parametrize("retries", [0, 2])
def test_a_failed_run_goes_on_when_its_client_is_mended(
    fed: Federation, client: umbel.ClientApp, tmp_path: Path, retries: int
) -> None:
    broken = tmp_path / "broken"
    config = {"lr": 0.1, "broken": str(broken)}
    strategy = umbel.fed_adam(config=config, rounds=umbel.rounds(min_nodes=2, retries=retries))
    app = server(fed, "server").with_(strategy=strategy)
    results = []
    for where, on in (("here", umbel.Simulation(NAMES)), ("there", umbel.connect(fed.token))):
        call: Any = {"on": on, "seed": 5, "rounds": 3, "dir": tmp_path / where}
        broken.touch()
        with pytest.raises(QuorumMissed, match="not mounted"):
            umbel.run(app, client, **call)
        broken.unlink()
        results.append(umbel.run(app, client, **call))
    same(*results)


def test_what_main_raises_is_raised_here(fed: Federation, client: umbel.ClientApp) -> None:
    with pytest.raises(RunError, match=r"main raised LookupError: of the user\nTraceback"):
        umbel.run(server(fed, "broken"), client, on=umbel.connect(fed.token))
