"""Declared training on Ray: the clients of a shard are trained together there, too, so that the bits are the same."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest

import umbel
from tests.acceptance.clusters import MARKS, inline, on_ray, same, two_nodes
from umbel.aggregate.base import Aggregator
from umbel.aggregate.expected import Expected
from umbel.correction import After, Correction, LocalRule, LocalTask
from umbel.errors import BadUpdate

pytest.importorskip("ray", reason="needs ray")
pytest.importorskip("torch", reason="needs PyTorch")
pytestmark = MARKS


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with two_nodes() as cluster:
        yield cluster


def net() -> Any:
    """Small enough to be stacked, and large enough for the last bits to show who is in a stack."""
    nn = __import__("torch").nn
    return nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 3))


def app(trouble: Any = None) -> umbel.ClientApp:
    """Clients of all sizes. Of some the data cannot be loaded; one has labels that do not exist."""
    client = umbel.ClientApp()

    @client.data
    def load(ctx: Any) -> Any:
        if ctx.rng.random() < 0.08:
            raise RuntimeError("drawn")
        size = int(ctx.rng.integers(5, 40))
        labels = ctx.rng.integers(0, 3, size)
        if ctx.client.name in ("77", "077"):
            labels[:] = 99
        if trouble is not None:
            trouble(ctx)
        return ctx.rng.normal(size=(size, 20)).astype(np.float32), labels

    loss = __import__("torch").nn.functional.cross_entropy
    client.train(umbel.torch.local_sgd(net, loss, lr=0.1, batch=8, shuffle=True))
    return client


@final
@dataclass(frozen=True, slots=True)
class Leaning(LocalRule):
    """A pull that grows with the client's trainings, which it keeps; what it sends back has a shape of the client's."""

    odd: frozenset[str] = frozenset()

    def correction(self, task: LocalTask) -> Correction:
        return Correction(pull=0.1 * (1 + task.state.get("trainings", 0)), anchor=task.model)

    def after(self, task: LocalTask, delta: umbel.Arrays, steps: int | None) -> After:  # noqa: ARG002
        trainings = task.state.get("trainings", 0) + 1
        seen = np.full(3 if task.client in self.odd else 2, trainings)
        return After(state={"trainings": trainings}, extra={"seen": umbel.Arrays({"n": seen})})


@final
@dataclass(frozen=True, slots=True)
class Rising(Aggregator):
    """Only those with more samples than the last one; it looks at more than the specs."""

    def expects(self, sent: umbel.Arrays | None) -> Expected:
        return umbel.aggregate.mean().expects(sent)

    def init(self, sent: umbel.Arrays | None) -> Any:
        return [umbel.aggregate.mean().init(sent), 0.0]

    def admit(self, acc: Any, update: umbel.Update) -> None:
        if update.weight < acc[1] - 15:
            raise BadUpdate(f"{update.weight} samples are too few after {acc[1]}")

    def fold(self, acc: Any, update: umbel.Update, sent: umbel.Arrays | None) -> Any:
        return [umbel.aggregate.mean().fold(acc[0], update, sent), update.weight]

    def merge(self, acc: Any, later: Any) -> Any:
        return [umbel.aggregate.mean().merge(acc[0], later[0]), later[1]]

    def finish(self, acc: Any) -> umbel.Arrays | None:
        return umbel.aggregate.mean().finish(acc[0])


def federation(cohort: int, rule: Leaning, aggregator: Aggregator | None = None) -> umbel.ServerApp:
    """Two rounds of training, and the extra arrays that came back."""
    torch = __import__("torch")
    torch.manual_seed(3)
    server = umbel.ServerApp(model=umbel.torch.arrays(net()), rounds=2)

    @server.main
    def main(fed: Any) -> None:
        state = fed.state or {"model": fed.initial}
        for _ in fed.rounds():
            got = fed.train(
                state["model"],
                cohort=umbel.sample.count(cohort),
                aggregator=aggregator,
                aggregators={"seen": umbel.aggregate.sum()},
                local=rule,
                policy=umbel.rounds(quorum=0.2, spare=30),
            )
            state = {"model": state["model"] + got.value, "seen": got.extra["seen"]}
            fed.commit(state, metrics=got.metrics)

    return server


def equal(a: umbel.Result, b: umbel.Result) -> bool:
    return same(a, b) and a.state == b.state


def trained(quorum: float = 0.5) -> umbel.ServerApp:
    strategy = umbel.fed_avg(rounds=umbel.rounds(quorum=quorum))
    return umbel.ServerApp(model=umbel.torch.arrays(net()), strategy=strategy, rounds=1)


def test_the_bits_depend_on_who_is_trained_together() -> None:
    """Else the tests below would not see who is."""
    alone, server = app(), trained()
    alone.use(lambda model, ctx, call: call(model, ctx))
    assert inline(server, alone, 60).model != inline(server, app(), 60).model


@pytest.mark.parametrize("cohort", [1, 40, 200])
def test_the_same_bits_states_failures_and_spares(cluster: Any, cohort: int) -> None:
    server = federation(cohort, Leaning())
    a, b = inline(server, app(), 250), on_ray(server, app(), 250)
    assert equal(a, b)
    assert cohort == 1 or any("drawn" in failure.message for failure in a.failures)


@pytest.mark.parametrize("odd", [range(31, 32), range(140, 200)])
def test_a_group_is_done_again_as_a_whole(cluster: Any, odd: range) -> None:
    """Where an extra array does not fit within a shard, or between shards."""
    names = [f"{i:03}" for i in range(200)]
    server = federation(180, Leaning(frozenset(names[i] for i in odd)))
    a, b = inline(server, app(), names), on_ray(server, app(), names)
    assert equal(a, b)
    assert any("seen" in failure.message or "shape" in failure.message for failure in a.failures)


def test_an_aggregator_that_looks_at_what_was_folded_before(cluster: Any) -> None:
    server = federation(150, Leaning(), Rising())
    a, b = inline(server, app(), 250), on_ray(server, app(), 250)
    assert equal(a, b)
    assert any("too few" in failure.message for failure in a.failures)


def test_a_worker_is_killed_in_the_middle_of_a_group(
    cluster: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    once = tmp_path / "once"

    def trouble(ctx: Any) -> None:
        if ctx.client.name == "17" and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    server = federation(150, Leaning())
    assert equal(inline(server, app(), 150), on_ray(server, app(trouble), 150))
    assert once.exists()
    assert caplog.text.count("worker-lost") == 1


def test_a_client_that_kills_its_worker_each_time_fails_alone(cluster: Any) -> None:
    def deadly(ctx: Any) -> None:
        if ctx.client.name == "17":
            os._exit(3)

    result = on_ray(trained(), app(deadly), 40)
    assert ["lives" in failure.message for failure in result.failures if failure.client == "17"] == [True]
    assert result.model is not None
