"""Federations that show what an engine might do to bits: threads, generators, states, and where arrays lie.

Each is a function that gives (server, client). Engines are compared by `outcome`.
"""

# ruff: noqa: ARG002  # samplers and aggregators take what they are given

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import umbel
from umbel.aggregate import Aggregator, Expected
from umbel.codec import encode

CLIENTS = [f"c{i:02d}" for i in range(13)]
Federation = tuple[umbel.ServerApp, umbel.ClientApp]


def outcome(result: umbel.Result) -> dict[str, Any]:
    """All that must be the same bits."""
    return {
        "model": result.model.digest() if result.model is not None else None,
        "state": encode(result.state, lambda arrays: arrays.digest()),
        "history": [dict(row) for row in result.history],
        "clients": {n: [c.counted, c.failed, dict(c.metrics)] for n, c in result.clients.items()},
        "failures": [[f.client, f.round, f.kind, f.code, f.message] for f in result.failures],
        "status": result.status,
    }


# --- with PyTorch ----------------------------------------------------------------------------------


def make_net() -> Any:
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(6 * 64, 10),
    )


def torch_client(loaders: int, dtype: str) -> umbel.ClientApp:
    """Dropout, a shuffling loader, draws from all generators, a state."""
    client = umbel.ClientApp()

    @client.setup
    def setup(ctx: Any) -> Any:
        import torch

        return make_net().to(getattr(torch, dtype))

    @client.data
    def load(ctx: Any) -> Any:
        import torch

        x = torch.from_numpy(ctx.rng.normal(size=(24, 1, 8, 8)).astype(np.float32)).to(getattr(torch, dtype))
        return torch.utils.data.TensorDataset(x, torch.from_numpy(ctx.rng.integers(0, 10, 24)))

    @client.train
    def train(model: umbel.Arrays, ctx: Any) -> umbel.Update:
        import torch

        net = umbel.torch.into(ctx.shared, model)
        net.train()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
        for x, y in torch.utils.data.DataLoader(ctx.data, batch_size=8, shuffle=True, num_workers=loaders):
            x = x + 0.01 * random.random() + 0.01 * np.random.rand()  # noqa: PLW2901  # as user code draws
            loss = torch.nn.functional.cross_entropy(net(x).float(), y)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # of PyTorch
            optimizer.step()
        ctx.state["trainings"] = ctx.state.get("trainings", 0) + 1
        ctx.state["last"] = umbel.torch.arrays(net)
        return umbel.Update(
            model=ctx.state["last"], weight=24, metrics={"loss": loss.item(), "trainings": ctx.state["trainings"]}
        )

    @client.evaluate
    def evaluate(model: umbel.Arrays, ctx: Any) -> umbel.Metrics:
        net = umbel.torch.into(ctx.shared, model)
        net.eval()
        return umbel.Metrics({"logit": net(ctx.data.tensors[0]).float().mean().item()}, weight=24)

    return client


def cnn(loaders: int = 0, dtype: str = "float32", cohort: int = 8, rounds: int = 2) -> Federation:
    def initial() -> umbel.Arrays:
        import torch

        return umbel.torch.arrays(make_net().to(getattr(torch, dtype)))

    strategy = umbel.fed_adam(
        lr=0.01, cohort=umbel.sample.count(cohort), evaluate=umbel.evaluation(every=2, cohort=umbel.sample.count(5))
    ).with_(umbel.transforms.clip(1.0))
    return umbel.ServerApp(model=initial, strategy=strategy, rounds=rounds), torch_client(loaders, dtype)


def cnn_with_loader_processes() -> Federation:
    return cnn(loaders=1, cohort=3, rounds=2)


def cnn_in_bfloat16() -> Federation:
    return cnn(dtype="bfloat16", cohort=4)


# --- without -----------------------------------------------------------------------------------------


def noisy(size: int, clip: float | None = 1.0) -> Federation:
    """A model of so many float32; clipped, Adam."""
    client = umbel.ClientApp()

    @client.train
    def train(model: umbel.Arrays, ctx: Any) -> umbel.Update:
        w = model["w"] + ctx.rng.normal(size=size).astype(np.float32) + np.float32(np.random.rand())
        return umbel.Update(model={"w": w}, weight=ctx.rng.integers(1, 9))

    strategy = umbel.fed_adam(lr=0.1, cohort=umbel.sample.count(7))
    strategy = strategy.with_(umbel.transforms.clip(clip)) if clip else strategy
    return umbel.ServerApp(model={"w": np.zeros(size, np.float32)}, strategy=strategy, rounds=2), client


def tiny() -> Federation:
    return noisy(10)


def empty() -> Federation:
    return noisy(0, clip=None)


def large() -> Federation:
    return noisy(3_000_000)


def states() -> Federation:
    """States of all kinds, that come back in later rounds and in queries, and do not in evaluations."""
    client = umbel.ClientApp()

    def seen(ctx: Any) -> float:
        kept = ctx.state.get("kept")
        return float(
            ctx.state.get("n", 0) + ctx.state.get("path", np.zeros(1)).sum() + (kept["w"].sum() if kept else 0)
        )

    @client.train
    def train(model: umbel.Arrays, ctx: Any) -> umbel.Update:
        before = seen(ctx)
        ctx.state["n"] = ctx.state.get("n", 0) + 1
        ctx.state["path"] = np.append(ctx.state.get("path", np.zeros(0)), ctx.rng.random())
        ctx.state["kept"] = model + before
        ctx.state["raw"] = ctx.client.name.encode() * ctx.state["n"]
        ctx.state["grid"] = np.arange(12).reshape(3, 4)[:, ::2]
        return umbel.Update(model=model + ctx.rng.random(), metrics={"before": before})

    @client.evaluate
    def evaluate(model: umbel.Arrays, ctx: Any) -> umbel.Metrics:
        return umbel.Metrics({"seen": seen(ctx)})

    strategy = umbel.fed_avg(cohort=umbel.sample.count(6), evaluate=umbel.evaluation())
    return umbel.ServerApp(model={"w": np.zeros(40)}, strategy=strategy, rounds=4), client


def queries() -> Federation:
    """Values and payloads, extra arrays both ways, several exchanges in a round, one without a model."""
    client = umbel.ClientApp()

    @client.query("tree")
    def tree(model: Any, ctx: Any) -> umbel.Update:
        size = int(ctx.rng.integers(0, 50_000))
        return umbel.Update(value={"tree": ctx.rng.bytes(size), "gains": ctx.rng.random(size % 7)})

    @client.query("histogram")
    def histogram(model: Any, ctx: Any) -> umbel.Update:
        return umbel.Update(value={"counts": ctx.rng.integers(0, 9, 20)}, weight=int(ctx.rng.integers(1, 5)))

    @client.train
    def train(model: umbel.Arrays, ctx: Any) -> umbel.Update:
        mine = ctx.state.get("c", model.zeros())
        ctx.state["c"] = mine + ctx.rng.random() - ctx.extra["c"]
        return umbel.Update(
            model=model + 0.1 * ctx.extra["c"] + ctx.rng.random(), extra={"change": ctx.state["c"] - mine}
        )

    server = umbel.ServerApp(model={"w": np.zeros(30_000)}, rounds=3)
    everyone = umbel.sample.everyone()

    @server.main
    def main(fed: Any) -> None:
        s = fed.state or {"model": fed.initial, "c": fed.initial.zeros()}
        for _ in fed.rounds():
            got = fed.train(
                s["model"],
                cohort=umbel.sample.count(5),
                extra={"c": s["c"]},
                aggregators={"change": umbel.aggregate.sum()},
            )
            s = {"model": s["model"] + got.mean, "c": s["c"] + got.extra["change"] / 13}
            trees = fed.query("tree", cohort=everyone, aggregator=umbel.aggregate.concat())
            s["trees"] = trees.concat
            s["counts"] = fed.query("histogram", s["model"], cohort=everyone, aggregator=umbel.aggregate.sum()).sum
            fed.commit(s)

    return server, client


def slices() -> Federation:
    """Small devices train a part of the model."""
    client = umbel.ClientApp()

    @client.train
    def train(model: umbel.Arrays, ctx: Any) -> umbel.Update:
        units = 3 + int(ctx.client.name[1:]) % 5
        return umbel.Update(model={"w": model["w"][:, :units] + ctx.rng.normal(size=(4, units))}, weight=units)

    strategy = umbel.fed_avg(aggregator=umbel.aggregate.mean(slices=True))
    return umbel.ServerApp(model={"w": np.zeros((4, 9))}, strategy=strategy, rounds=3), client


def failing() -> Federation:
    """Some raise, spares take over, and some rounds miss their quorum and are asked again."""
    client = umbel.ClientApp()

    @client.train
    def train(model: umbel.Arrays, ctx: Any) -> umbel.Update:
        if ctx.rng.random() < 0.3:
            raise ConnectionError(f"{ctx.client.name} is away in round {ctx.round}")
        ctx.state["n"] = ctx.state.get("n", 0) + 1
        return umbel.Update(model=model + ctx.rng.random(), metrics={"n": ctx.state["n"]})

    strategy = umbel.fed_avg(
        cohort=umbel.sample.count(6), rounds=umbel.rounds(spare=3, quorum=0.9, retries=30), evaluate=None
    )
    return umbel.ServerApp(model={"w": np.zeros(3)}, strategy=strategy, rounds=6), client


@dataclass(frozen=True)
class Nobody(umbel.sample.Sampler):
    """An empty cohort, every second round."""

    def draw(self, population: umbel.sample.Population, *, round: int, rng: Any) -> tuple[str, ...]:
        return population.names[:3] if round % 2 else ()


def empty_cohorts() -> Federation:
    _, client = noisy(10)
    strategy = umbel.fed_avg(cohort=Nobody(), rounds=umbel.rounds(quorum=0))
    return umbel.ServerApp(model={"w": np.zeros(10, np.float32)}, strategy=strategy, rounds=4), client


@dataclass(frozen=True)
class Middle(Aggregator):
    """The median: it keeps all updates, as they come, until the end."""

    result = "mean"

    def expects(self, sent: umbel.Arrays | None) -> Expected:
        return umbel.aggregate.mean().expects(sent)

    def init(self, sent: umbel.Arrays | None) -> list[umbel.Arrays]:
        return []

    def fold(self, acc: list[umbel.Arrays], update: umbel.Update, sent: umbel.Arrays | None) -> list[umbel.Arrays]:
        return [*acc, update.arrays]

    def merge(self, acc: list[umbel.Arrays], later: list[umbel.Arrays]) -> list[umbel.Arrays]:
        return [*acc, *later]

    def finish(self, acc: list[umbel.Arrays]) -> umbel.Arrays | None:
        return umbel.Arrays({"w": np.median([a["w"] for a in acc], axis=0)}) if acc else None


def keeping_aggregator() -> Federation:
    client = umbel.ClientApp()

    @client.train
    def train(model: umbel.Arrays, ctx: Any) -> umbel.Update:
        return umbel.Update(delta={"w": ctx.rng.normal(size=200_000)})

    strategy = umbel.fed_avg(aggregator=Middle())
    return umbel.ServerApp(model={"w": np.zeros(200_000)}, strategy=strategy, rounds=3), client


def keeping_clients() -> Federation:
    """User code that looks at arrays of rounds that are over; what it finds must be what was there."""
    client = umbel.ClientApp()

    @client.setup
    def setup(ctx: Any) -> dict[str, Any]:
        return {}

    @client.train
    def train(model: umbel.Arrays, ctx: Any) -> umbel.Update:
        kept = ctx.shared
        for name, (array, total) in kept.items():
            assert array.sum() == total, f"{name} has changed"
        kept[f"view {ctx.round % 3} {ctx.client.name}"] = (model["w"], model["w"].sum())
        if ctx.round == 1:
            kept["first"] = (model["w"][5:], model["w"][5:].sum())
        kept[f"slice {ctx.round % 2}"] = (ctx.extra["e"]["w"][::7], ctx.extra["e"]["w"][::7].sum())
        made = umbel.Update(model=model + ctx.rng.random())
        kept[f"own {ctx.round % 4}"] = (made.arrays["w"], made.arrays["w"].sum())
        return made

    server = umbel.ServerApp(model={"w": np.ones(50_000)}, rounds=6)

    @server.main
    def main(fed: Any) -> None:
        model = fed.initial
        for _ in fed.rounds():
            model = model + fed.train(model, cohort=umbel.sample.count(6), extra={"e": model * 2.0}).mean
            fed.commit({"model": model})

    return server, client


WITH_TORCH: list[Callable[[], Federation]] = [cnn, cnn_with_loader_processes, cnn_in_bfloat16]
PLAIN: list[Callable[[], Federation]] = [
    tiny,
    empty,
    large,
    states,
    queries,
    slices,
    failing,
    empty_cohorts,
    keeping_aggregator,
    keeping_clients,
]
