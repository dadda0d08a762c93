"""Devices: who computes where, how many there are, and what happens when memory does not suffice."""

# ruff: noqa: ARG005  # handlers take what they are given

from __future__ import annotations

import logging
import os
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import umbel
from umbel.client import memory
from umbel.client.context import pick_device
from umbel.simulation import processes


class OutOfMemoryError(RuntimeError):
    """Called as PyTorch's is."""


def federation(body: Any) -> tuple[umbel.ServerApp, umbel.ClientApp]:
    client = umbel.ClientApp()

    @client.train
    def train(model: umbel.Arrays, ctx: Any) -> umbel.Update:
        body(ctx)
        return umbel.Update(
            model=model + ctx.rng.random(), metrics={"pid": os.getpid() % 4096, "square": (os.getpid() % 4096) ** 2}
        )

    strategy = umbel.fed_avg(rounds=umbel.rounds(quorum=0.5))
    return umbel.ServerApp(model={"w": np.zeros(10)}, strategy=strategy, rounds=3), client


def by_one(result: umbel.Result) -> bool:
    """Did one process do the last round? Then the numbers of those who did have no variance."""
    last = result.history[-1]
    return bool(abs(last["square"] - last["pid"] ** 2) < 1e-3)


def run(body: Any, **arguments: Any) -> umbel.Result:
    server, client = federation(body)
    result = umbel.run(server, client, on=umbel.Simulation(9, engine="processes", **arguments), seed=1)
    inline = umbel.run(server, federation(lambda ctx: None)[1], on=umbel.Simulation(9, engine="inline"), seed=1)
    assert result.model == inline.model or result.failures
    return result


def test_a_full_device_redoes_the_client_with_one_worker_fewer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def body(ctx: Any) -> None:
        assert ctx.device == "cuda:0"
        (tmp_path / str(os.getpid())).touch()
        if ctx.client.name == "3" and len(list(tmp_path.iterdir())) < 3:
            (tmp_path / "full once").touch()
            (tmp_path / "full").touch()
            raise OutOfMemoryError("CUDA out of memory")

    with caplog.at_level(logging.WARNING):
        result = run(body, workers=2, devices="cuda:0")
    assert result.failures == ()
    assert caplog.text.count("device-full: the memory of cuda:0 does not suffice for so many workers") == 1
    assert "worker-lost" not in caplog.text
    assert by_one(result)


def test_a_client_that_is_too_large_for_a_device_of_its_own_fails(caplog: pytest.LogCaptureFixture) -> None:
    def body(ctx: Any) -> None:
        if ctx.client.name == "3":
            raise OutOfMemoryError("CUDA out of memory")

    with caplog.at_level(logging.WARNING):
        result = run(body, workers=3)
    assert [(f.client, f.round) for f in result.failures] == [("3", 1), ("3", 2), ("3", 3)]
    assert "OutOfMemoryError: CUDA out of memory" in result.failures[0].message
    assert caplog.text.count("device-full") == 1


def test_workers_take_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = types.SimpleNamespace(is_available=lambda: True, device_count=lambda: 3)
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=gpus))
    assert [pick_device("auto", n) for n in range(5)] == ["cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:1"]
    assert pick_device("cpu", 4) == "cpu"
    assert umbel.Simulation(9, per_device=2)._most() == 6
    assert umbel.Simulation(9, per_device=2, devices="cuda:1")._most() == 2


def test_without_gpus_there_is_one_worker_per_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr("umbel.simulation.simulation.cores", lambda: 7)
    assert pick_device("auto", 3) == "cpu"
    assert umbel.Simulation(9, per_device=2)._most() == umbel.Simulation(9, devices="cpu")._most() == 7


@pytest.mark.parametrize("chosen", [True, False])
def test_no_more_workers_than_there_is_memory_for(
    chosen: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Measured by the first one that has worked; who says how many there are gets them."""
    monkeypatch.setattr("umbel.simulation.simulation.cores", lambda: 3)
    monkeypatch.setattr(processes, "available", lambda: 1)
    with caplog.at_level(logging.WARNING):
        result = run(lambda ctx: None, workers=3 if chosen else "auto")
    assert result.failures == ()
    assert ("fewer-workers: one takes" in caplog.text) != chosen
    if not chosen:
        assert by_one(result)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs procfs")
def test_memory_is_measured() -> None:
    before = memory.resident()
    ballast = np.ones(160_000_000, np.uint8)  # more than other threads may let go of meanwhile
    assert memory.resident() - before > 80_000_000
    assert memory.available() > 1 << 20
    del ballast
