"""Clients on Ray that hang, devices that are full, and exchanges that end before all is done: the run goes on."""

# ruff: noqa: ARG005  # handlers take what they are given

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import umbel
from tests.acceptance.clusters import MARKS, breaking, inline, same, two_nodes
from umbel.errors import QuorumMissed

ray = pytest.importorskip("ray", reason="needs ray")
pytestmark = MARKS


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with two_nodes() as cluster:
        yield cluster


def federation(rounds: int = 2) -> umbel.ServerApp:
    strategy = umbel.fed_avg(rounds=umbel.rounds(quorum=0.5))
    return umbel.ServerApp(model={"w": np.zeros(50, np.float32)}, strategy=strategy, rounds=rounds)


def run(client: umbel.ClientApp, clients: Any, rounds: int = 2, **arguments: Any) -> umbel.Result:
    return umbel.run(federation(rounds), client, on=umbel.Ray(clients=clients, **arguments), seed=11)


def without(names: set[str]) -> Callable[[Any], None]:
    def deed(ctx: Any) -> None:
        if ctx.client.name in names:
            raise RuntimeError

    return deed


def agrees(a: umbel.Result, b: umbel.Result) -> bool:
    """Are two runs the same but for what is said of the failures?"""
    assert [(f.client, f.round, f.kind) for f in a.failures] == [(f.client, f.round, f.kind) for f in b.failures]
    return a.model == b.model and a.history == b.history


# --- clients that take too long --------------------------------------------------------------


def forever() -> None:
    while True:
        signal.pause()


@pytest.mark.parametrize("clients", [30, 200])
@pytest.mark.parametrize("in_c", [False, True])
def test_a_client_that_hangs(cluster: Any, clients: int, in_c: bool, caplog: pytest.LogCaptureFixture) -> None:
    """In Python, and in C while it holds the interpreter; within a shard that is folded, and without."""

    def deed(ctx: Any) -> None:
        if ctx.client.name == "17":
            if in_c:
                ctypes.PyDLL(None).pause()
            forever()

    result = run(breaking(deed), clients, limit=1.0)
    assert agrees(inline(federation(), breaking(without({"17"})), clients), result)
    assert [failure.client for failure in result.failures] == ["17", "17"]
    assert result.failures[0].message == "its train handler took longer than 1 seconds and was ended"
    assert f'File "{__file__}"' in result.failures[1].traceback
    assert caplog.text.count("was ended while '17' was at work for too long") == 2


def test_of_many_that_hang_each_fails_and_nobody_is_trained_a_third_time(cluster: Any, tmp_path: Path) -> None:
    slow = {"7", "10", "100", "120", "40"}

    def deed(ctx: Any) -> None:
        with (tmp_path / ctx.client.name).open("a") as file:
            file.write(".")
        if ctx.client.name in slow:
            forever()

    result = run(breaking(deed), 128, rounds=1, limit=0.7)
    assert agrees(inline(federation(1), breaking(without(slow)), 128), result)
    trainings = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert {trainings[name] for name in slow} == {1}
    assert set(trainings.values()) == {1, 2}


def test_a_client_that_hangs_when_its_task_is_done_again(cluster: Any, tmp_path: Path) -> None:
    """The values of a shard do not fit those before; they are asked for again, and one of the clients hangs then."""
    names = [f"{i:03}" for i in range(128)]
    client = umbel.ClientApp()

    @client.query("value")
    def value(model: Any, ctx: Any) -> umbel.Update:
        if ctx.client.name == "070":
            if (tmp_path / "once").exists():
                forever()
            (tmp_path / "once").touch()
        return umbel.Update(value={"x": np.full(3 if ctx.client.name >= "064" else 2, ctx.rng.random())})

    server = umbel.ServerApp(rounds=1)

    @server.main
    def main(fed: Any) -> None:
        policy = umbel.rounds(quorum=0)
        got = fed.query("value", cohort=umbel.sample.everyone(), aggregator=umbel.aggregate.sum(), policy=policy)
        fed.commit({"clients": list(got.clients)})

    result = umbel.run(server, client, on=umbel.Ray(clients=names, limit=1.0), seed=1)
    assert result.state["clients"] == names[:64]
    assert [failure.client for failure in result.failures] == names[64:]
    assert ["took longer" in failure.message for failure in result.failures].index(True) == 6
    assert sum("took longer" in failure.message for failure in result.failures) == 1


def test_one_of_a_group_that_is_trained_together_hangs(cluster: Any) -> None:
    """The others are then trained alone, as worker processes of this machine do it."""
    torch = pytest.importorskip("torch", reason="needs PyTorch")

    def net() -> Any:
        return torch.nn.Linear(20, 3)

    client = umbel.ClientApp()

    @client.data
    def load(ctx: Any) -> Any:
        if ctx.client.name == "2":
            forever()
        return ctx.rng.normal(size=(9, 20)).astype(np.float32), ctx.rng.integers(0, 3, 9)

    client.train(umbel.torch.local_sgd(net, torch.nn.functional.cross_entropy, lr=0.1, batch=8))
    strategy = umbel.fed_avg(rounds=umbel.rounds(quorum=0.5))
    server = umbel.ServerApp(model=umbel.torch.arrays(net()), strategy=strategy, rounds=1)
    on = [umbel.Ray(clients=3, limit=2.0), umbel.Simulation(clients=3, engine="processes", workers=2, limit=2.0)]
    a, b = (umbel.run(server, client, on=place, seed=11) for place in on)
    assert [failure.client for failure in a.failures] == ["2"]
    assert "its train handler took longer than 2 seconds" in a.failures[0].message
    assert agrees(a, b)


def test_with_a_limit_a_worker_that_is_killed_is_nobodys_failure(cluster: Any, tmp_path: Path) -> None:
    once = tmp_path / "once"

    def deed(ctx: Any) -> None:
        if ctx.client.name == "17" and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    harmless = inline(federation(), breaking(lambda ctx: None), 100)
    assert same(harmless, run(breaking(deed), 100, limit=60))
    assert once.exists()


@pytest.mark.parametrize("limit", [0, -1, "a minute"])
def test_limits_that_make_no_sense(limit: Any) -> None:
    with pytest.raises(umbel.errors.UsageError):
        umbel.Ray(clients=3, limit=limit)


# --- devices that are full -------------------------------------------------------------------


class OutOfMemoryError(RuntimeError):
    """Called as PyTorch's is."""


def met(client: umbel.ClientApp, place: umbel.Ray, here: Path, actors: int) -> None:
    """Have so many actors at work, so that they are known to share what they compute on."""
    here.mkdir()

    @client.query("meet")
    def meet(model: Any, ctx: Any) -> umbel.Update:
        (here / str(os.getpid())).touch()
        while len(list(here.iterdir())) < actors:
            time.sleep(0.01)
        return umbel.Update(value={"n": 1})

    server = umbel.ServerApp(rounds=1)

    @server.main
    def main(fed: Any) -> None:
        fed.query("meet", cohort=umbel.sample.everyone(), aggregator=umbel.aggregate.sum())
        fed.commit({})

    umbel.run(server, client, on=place, seed=11)


@pytest.mark.parametrize("clients", [30, 300])
def test_a_full_device_does_the_client_again_with_one_worker_fewer(
    cluster: Any, clients: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two actors on each machine share what they compute on."""
    once = tmp_path / "once"

    def deed(ctx: Any) -> None:
        assert ctx.device == "cuda:0"
        if ctx.client.name == "3" and not once.exists():
            once.touch()
            raise OutOfMemoryError("CUDA out of memory")

    client = breaking(deed)
    with umbel.Ray(clients=clients, cpus=0.5, devices="cuda:0") as place:
        met(client, place, tmp_path / "here", 4)
        results = [umbel.run(federation(), client, on=place, seed=11) for _ in range(2)]
        assert place._crew is not None
        assert len(place._crew.members) == 3
    harmless = inline(federation(), breaking(lambda ctx: None), clients)
    assert all(same(harmless, result) for result in results)
    assert caplog.text.count("device-full: the memory of cuda:0 of ") == 1
    assert "worker-lost" not in caplog.text


@pytest.mark.parametrize("shared", [True, False])
def test_a_client_that_is_too_large_for_a_device_of_its_own_fails(
    cluster: Any, shared: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def deed(ctx: Any) -> None:
        if ctx.client.name in ("3", "5"):
            raise OutOfMemoryError("CUDA out of memory")

    client = breaking(deed)
    with umbel.Ray(clients=100, cpus=0.5 if shared else 1) as place:
        met(client, place, tmp_path / "here", 4 if shared else 2)
        result = umbel.run(federation(), client, on=place, seed=11)
    assert agrees(inline(federation(), breaking(without({"3", "5"})), 100), result)
    assert "OutOfMemoryError: CUDA out of memory" in result.failures[0].message
    assert caplog.text.count("device-full") == shared


# --- exchanges that end early ----------------------------------------------------------------


@pytest.mark.parametrize("limit", [None, 600])
def test_what_is_left_of_an_exchange_is_not_done(cluster: Any, limit: float | None, tmp_path: Path) -> None:
    """One actor is in the middle of a piece and has a second one, others wait; the quorum is missed meanwhile.

    Without a limit it does the piece in turn.
    """
    if not hasattr(ray.get_runtime_context(), "is_canceled"):
        pytest.skip("needs a Ray that can tell an actor in the middle of something")
    names = [f"{i:03}" for i in range(500)]
    client = umbel.ClientApp()

    def began(what: str) -> list[list[str]]:
        return [path.name.split()[1:] for path in tmp_path.glob(f"{what} *")]

    @client.query("work")
    def work(model: Any, ctx: Any) -> umbel.Update:
        what, name = ctx.config["what"], ctx.client.name
        (tmp_path / f"{what} {name} {os.getpid()}").touch()
        if what != "doomed":
            while len({pid for _, pid in began(what)}) < 2:  # or one actor does everything
                time.sleep(0.01)
        elif name == "064":
            while not ray.get_runtime_context().is_canceled():
                time.sleep(0.01)
        elif name == "000":
            while "064" not in dict(began(what)):
                time.sleep(0.01)
            raise RuntimeError
        return umbel.Update(value={"n": 1})

    def asked(*queries: str) -> umbel.ServerApp:
        server = umbel.ServerApp(rounds=1)

        @server.main
        def main(fed: Any) -> None:
            arguments = {"cohort": umbel.sample.everyone(), "aggregator": umbel.aggregate.sum()}
            for what in queries:
                with pytest.raises(QuorumMissed) if what == "doomed" else contextlib.nullcontext():
                    fed.query("work", config={"what": what}, policy=umbel.rounds(on_miss="stop"), **arguments)
            fed.commit({})

        return server

    with umbel.Ray(clients=names, limit=limit) as place:
        umbel.run(asked("before", "doomed"), client, on=place, seed=1)
        umbel.run(asked("after"), client, on=place, seed=1)
    actors = dict(began("doomed"))
    assert [name for name, pid in actors.items() if pid == actors["064"]] == ["064"], "it began with another client"
    assert "000" in actors
    before, after = ({pid for _, pid in began(what)} for what in ("before", "after"))
    assert before == after, "an actor was ended"
