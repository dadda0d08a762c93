"""The engine "auto": the bits of the calling thread, whenever it hands over, and it goes on where it cannot."""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

import numpy as np
import pytest

import umbel
from umbel.simulation import auto


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "patience", 0.0)
    monkeypatch.setattr("umbel.simulation.simulation.cores", lambda: 2)


def federation(held: Any = None, size: int = 50) -> tuple[umbel.ServerApp, umbel.ClientApp]:
    client = umbel.ClientApp()
    main = os.getpid()

    @client.data
    def data(ctx: Any) -> Any:
        return ctx.rng.random()

    @client.train
    def train(model: umbel.Arrays, ctx: Any) -> umbel.Update:
        assert held is held  # noqa: PLR0124  # it is captured
        ctx.state["n"] = ctx.state.get("n", 0) + 1
        if ctx.rng.random() < 0.1:
            raise ConnectionError
        return umbel.Update(
            model=model + ctx.data + ctx.rng.random(), metrics={"n": ctx.state["n"], "away": float(os.getpid() != main)}
        )

    strategy = umbel.fed_adam(lr=0.1, cohort=umbel.sample.count(size), rounds=umbel.rounds(quorum=0.5, spare=5))
    return umbel.ServerApp(model={"w": np.zeros(40)}, strategy=strategy, rounds=200), client


def run(server: umbel.ServerApp, client: umbel.ClientApp, on: umbel.Simulation) -> umbel.Result:
    """Until workers have done something, and for one round more."""
    seen: list[float] = []

    def enough(result: umbel.Result) -> str | None:
        seen.append(result.history[-1]["away"])
        return "enough" if len(seen) > 1 and seen[-2] > 0 else None

    return umbel.run(server, client, on=on, seed=1, callbacks=[enough])


def test_it_hands_over_in_the_middle_of_an_exchange_and_the_bits_are_the_same() -> None:
    server, client = federation()
    found = run(server, client, umbel.Simulation(100))
    assert found.history["away"][-1] == 1.0
    rounds = len(found.history)
    wanted = umbel.run(server.with_(rounds=rounds), client, on=umbel.Simulation(100, engine="inline"), seed=1)
    assert found.model == wanted.model
    assert [{**row, "away": 0} for row in found.history] == [{**row, "away": 0} for row in wanted.history]
    assert found.failures == wanted.failures


def test_an_app_that_cannot_be_sent_goes_on_here(caplog: pytest.LogCaptureFixture) -> None:
    server, client = federation(threading.Lock())
    with caplog.at_level(logging.WARNING):
        result = umbel.run(server.with_(rounds=2), client, on=umbel.Simulation(100), seed=1)
    assert result.history["away"].tolist() == [0.0, 0.0]
    assert caplog.text.count("no-workers: the run goes on in this process alone: 'held', which train uses") == 1


def test_patience_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "patience", float("inf"))
    server, client = federation()
    assert umbel.run(server.with_(rounds=3), client, on=umbel.Simulation(100), seed=1).history["away"].sum() == 0


def test_with_one_worker_or_one_core_there_is_nothing_to_hand_over(monkeypatch: pytest.MonkeyPatch) -> None:
    server, client = federation(size=5)
    few = server.with_(rounds=3)
    assert umbel.run(few, client, on=umbel.Simulation(9, workers=1), seed=1).history["away"].sum() == 0
    monkeypatch.setattr("umbel.simulation.simulation.cores", lambda: 1)
    assert umbel.run(few, client, on=umbel.Simulation(9), seed=1).history["away"].sum() == 0


def test_workers_that_are_there_already_are_used_at_once() -> None:
    server, client = federation()
    with umbel.Simulation(100) as on:
        run(server, client, on)
        assert umbel.run(server.with_(rounds=1), client, on=on, seed=1).history["away"].tolist() == [1.0]
